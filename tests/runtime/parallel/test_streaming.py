from __future__ import annotations

import pickle
from typing import Any

from jupyter_train.runtime.parallel.streaming import Dealer, Order, in_order


class Iterator:
    """Hears from its workers what is in ``arrivals``."""

    def __init__(self, *arrivals: tuple[Any, Any]) -> None:
        self._arrivals = list(arrivals)
        self._rcvd_idx = 0

    def _get_data(self) -> tuple[Any, Any]:
        return self._arrivals.pop(0)


class Resume:
    """A worker that persists begins its next pass."""


def test_what_workers_send_is_heard_in_the_order_of_the_batches() -> None:
    iterator = Iterator((2, "end of a worker"), (1, "b"), (0, "a"), (3, "d"))
    in_order(iterator)
    in_order(iterator)
    heard = []
    for number in range(4):
        iterator._rcvd_idx = number
        heard.append(iterator._get_data())
    assert heard == [(0, "a"), (1, "b"), (2, "end of a worker"), (3, "d")]


def test_what_came_before_a_new_pass_is_forgotten() -> None:
    resume = Resume()
    iterator = Iterator((1, "old"), (resume, None), (1, "new"), (0, "first"))
    in_order(iterator)
    assert iterator._get_data() == (resume, None)
    assert iterator._get_data() == (0, "first")
    iterator._rcvd_idx = 1
    assert iterator._get_data() == (1, "new")


def order(*, total: int, ranks: int = 2) -> Order:
    return Order(total=total, ranks=ranks, rank=1, uneven=False, state=0)


def test_a_dealer_cuts_as_the_order_says_that_was_read_last() -> None:
    outer, inner, dealer = (
        order(total=4),
        order(total=2, ranks=1),
        pickle.loads(pickle.dumps(Dealer(list, 1))),
    )
    for _ in outer:
        list(inner)  # a data set that reads from another loader
    dealt = dealer([5, 6, 7, 8])
    assert dealt.batch == [7, 8]
    assert dealt.share.sizes == (2, 2)


def test_a_stream_that_ends_in_the_middle_of_a_batch_is_cut_too() -> None:
    for number, _ in enumerate(order(total=9)):
        if number == 3:
            break
    dealt = Dealer(list, 1)([5, 6, 7])
    assert (dealt.batch, dealt.total) == ([7], 3)
