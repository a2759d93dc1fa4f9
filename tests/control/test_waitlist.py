"""Whose turn it is. Runs are written as name: workers; those that go on as a text with a letter per worker."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from jupyter_train.control.placement import Seat
from jupyter_train.control.waitlist import MOST_OVERTAKEN, Plan, Queue, Request, joined, left, plan, spare


def seats(running: str) -> list[Seat]:
    """A worker for each character: ``a`` has a rank of run ``a``, ``.`` is free, ``?`` has no agent yet."""
    return [
        Seat(
            worker=f"w{number}",
            name=str(number),
            host="h",
            run_id="" if one in ".?" else one,
            has_agent=one != "?",
        )
        for number, one in enumerate(running)
    ]


def queue(**ranks: int) -> Queue:
    return tuple(Request(run_id=run_id, ranks=n) for run_id, n in ranks.items())


def started(decided: Plan) -> list[str]:
    return [run_id for run_id, _ in decided.placed]


def ids(requests: Iterable[Request]) -> list[str]:
    return [request.run_id for request in requests]


# First come first served


def test_the_oldest_goes_first_and_the_others_say_their_place() -> None:
    decided = plan(queue(first=2, second=2, third=2), seats("..."))
    assert started(decided) == ["first"]
    assert [(w.run_id, w.queue_place, w.reason) for w in decided.waiting] == [
        ("second", 1, "first in the queue: needs 2 workers, 1 of 3 free"),
        ("third", 2, "number 2 in the queue: needs 2 workers"),
    ]
    assert ids(decided.queue) == ["second", "third"]


def test_what_has_begun_goes_before_what_has_not_in_the_order_in_which_it_came_back() -> None:
    waiting = queue(new=1, newer=1)
    for run_id in ("again", "later"):
        waiting = joined(waiting, Request(run_id=run_id, ranks=1, has_begun=True))
    waiting = joined(waiting, Request(run_id="newest", ranks=1))
    assert ids(waiting) == ["again", "later", "new", "newer", "newest"]
    assert started(plan(waiting, seats(".."))) == ["again", "later"]
    assert ids(left(waiting, "later")) == ["again", "new", "newer", "newest"]


def test_a_run_that_the_cluster_has_become_too_small_for_does_not_hold_up_others() -> None:
    decided = plan(queue(large=3, small=1), seats(".."))
    assert started(decided) == ["small"]
    assert [w.reason for w in decided.waiting] == [
        "first in the queue: needs 3 workers, but only 2 of them are left in the cluster"
    ]


def test_a_run_that_needs_a_worker_which_is_just_being_replaced_keeps_its_turn() -> None:
    waiting = queue(large=3, small=1)
    assert started(plan(waiting, seats(".."), coming=1)) == []
    assert started(plan(waiting, seats("..."))) == ["large"]


# Overtaking


def test_nobody_overtakes_a_run_that_needs_every_worker() -> None:
    decided = plan(queue(large=4, small=1), seats("a..."))
    assert started(decided) == []
    assert decided.waiting[1].reason == (
        "number 2 in the queue: needs 1 worker; the free ones are kept for those before it"
    )


def test_a_run_overtakes_as_often_as_there_are_some_where_it_delays_nobody() -> None:
    """Two workers come free at once, and the first needs one of them: the other one is nobody's."""
    waiting = queue(first=3)
    for n in range(3 * MOST_OVERTAKEN):
        decided = plan((*waiting, Request(run_id=f"s{n}", ranks=1)), seats("aa.."))
        assert started(decided) == [f"s{n}"]
        waiting = decided.queue
        assert waiting[0].overtaken == 0


def test_what_may_delay_the_first_overtakes_it_a_bounded_number_of_times() -> None:
    """Whichever of a and b ends first, the first could start, but for the one that overtakes."""
    waiting = queue(first=3)
    overtaken = 0
    for n in range(3 * MOST_OVERTAKEN):
        decided = plan((*waiting, Request(run_id=f"s{n}", ranks=1)), seats("ab.."))
        overtaken += len(started(decided))
        waiting = left(decided.queue, f"s{n}")
    assert overtaken == MOST_OVERTAKEN
    assert waiting[0].overtaken == MOST_OVERTAKEN


def test_the_first_never_waits_only_for_those_that_have_overtaken_it() -> None:
    first = Request(run_id="first", ranks=3, overtaken=1, overtaken_by=frozenset("s"))
    decided = plan((first, Request(run_id="t", ranks=1)), seats("sa.."))
    assert started(decided) == [], "with t beside s, two of four workers would be left for the first"
    assert started(plan(decided.queue, seats("s..."))) == ["first"]


def test_those_behind_the_first_are_not_overtaken_for_ever_either() -> None:
    waiting = queue(first=3, second=3)
    overtaken = 0
    for n in range(3 * MOST_OVERTAKEN):
        decided = plan((*waiting, Request(run_id=f"s{n}", ranks=1)), seats("aa.."))
        overtaken += len(started(decided))
        waiting = left(decided.queue, f"s{n}")
    assert overtaken == MOST_OVERTAKEN
    assert [request.overtaken for request in waiting] == [0, MOST_OVERTAKEN]


def test_who_has_overtaken_and_ended_is_forgotten() -> None:
    first = Request(run_id="first", ranks=4, overtaken_by=frozenset({"a", "gone"}))
    assert plan((first,), seats("ab..")).queue[0].overtaken_by == {"a"}


def test_workers_whose_agent_has_not_spoken_may_come_free_one_by_one() -> None:
    assert started(plan(queue(first=3, small=1), seats("aa.."))) == ["small"]
    decided = plan(queue(first=3, small=1), seats("??.."))
    assert started(decided) == ["small"]
    assert decided.queue[0].overtaken == 1, "it may delay the first"


@pytest.mark.parametrize(
    ("needed", "running", "most"),
    [
        (1, [2], 1),
        (1, [1, 1], 0),
        (2, [1, 4], 2),
        (3, [2, 2, 8], 1),
        (3, [1, 1], 0),  # never enough: nothing to spare
    ],
)
def test_what_is_left_over_whichever_run_ends_first(needed: int, running: list[int], most: int) -> None:
    assert spare(needed, running) == most
