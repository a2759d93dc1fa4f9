"""Loops that mix the samples of a batch are found and done whole; those that only look like it stay split."""

from __future__ import annotations

import pytest

from jupyter_train.runtime.parallel.aligning import Dim, Shapes, aligned, kinds, packed, unpacked
from jupyter_train.runtime.parallel.laws import lie_apart
from jupyter_train.runtime.parallel.mixing import OTHERS, PAIRS, STATISTIC, Mixing, Op
from jupyter_train.runtime.parallel.rows import Order, order_after
from tests.runtime.parallel.mixed import APART, MIXED
from tests.runtime.parallel.ranks import FIRST_LINE, Outcome, Way, difference, side_by_side


@pytest.fixture(scope="module", params=[2, 4])
def table(request: pytest.FixtureRequest) -> dict[str, tuple[Outcome, list[Outcome]]]:
    cells = {**{name: cell for name, (_, cell) in MIXED.items()}, **APART}
    return side_by_side(cells, Way(ranks=request.param))


@pytest.mark.parametrize("name", MIXED)
def test_a_loop_that_mixes_samples_is_done_whole(
    name: str, table: dict[str, tuple[Outcome, list[Outcome]]]
) -> None:
    word, cell = MIXED[name]
    one, ranks = table[name]
    for rank in ranks:
        assert rank.error == ""
        assert rank.attempts == 2
        assert difference(one.weights, rank.weights) < 1e-9
    (line,) = [FIRST_LINE + k for k, text in enumerate(cell.splitlines()) if "# whole" in text]
    said = [text for text in ranks[0].remarks if word in text]
    assert f"so every rank computes the loop of line {line} whole: right, but not faster" in said[0]


@pytest.mark.parametrize("name", APART)
def test_what_only_looks_like_it_stays_split(
    name: str, table: dict[str, tuple[Outcome, list[Outcome]]]
) -> None:
    one, ranks = table[name]
    for rank in ranks:
        assert rank.error == ""
        assert rank.attempts == 1
        assert difference(one.weights, rank.weights) < 1e-9


# The rules, without ranks


def test_dimensions_are_told_by_how_they_differ() -> None:
    shares = [[9, 7]]
    assert kinds([(9, 3), (7, 3)], shares) == (Dim.BATCH, Dim.SAME)
    assert kinds([(2, 27), (2, 21)], shares) == (Dim.SAME, Dim.BATCH)
    assert kinds([(9, 11), (7, 10)], shares) == (Dim.BATCH, Dim.RAGGED)
    assert kinds([(9,), (7, 1)], shares) is None


def test_logs_are_aligned_from_both_ends() -> None:
    def log(*names: str) -> list[Shapes]:
        return [Shapes(name, ((1,),), ((1,),)) for name in names]

    mine, other = log("a", "b", "b", "b", "c"), log("a", "b", "b", "c")
    assert unpacked(packed(mine)) == mine
    assert [one is not None for one in aligned(mine, [mine, other])] == [True, True, True, False, True]


def judged(*ops: tuple[str, tuple[int, ...], int, tuple[str, ...], str]) -> str:
    """The verdict on operations (name, inputs, output, shapes in, shape out), where B stands for the batch; 1 is handed out."""

    def shape(text: str, size: int) -> tuple[int, ...]:
        return tuple(size if one == "B" else int(one) for one in text)

    every = [
        [
            Shapes(name, tuple(shape(one, size) for one in into), (shape(out, size),))
            for name, _, _, into, out in ops
        ]
        for size in (9, 7)
    ]
    log = [
        Op(shapes=shapes, ins=ins, outs=(number,), detail=[0] if name == "flip" else 1)
        for shapes, (name, ins, number, _, _) in zip(every[0], ops, strict=True)
    ]
    mixing = Mixing()
    mixing.hand_out([1], 1)
    mixing.read(log, aligned(every[0], every), [[9, 7]], 0)
    found = mixing.blame([ops[-1][2]])
    return "" if found is None else found.why


def test_a_statistic_that_meets_samples_again_mixes_them() -> None:
    mean = ("mean", (1,), 2, ("B3",), "3")
    assert judged(mean, ("sub", (1, 2), 3, ("B3", "3"), "B3"), ("mean", (3,), 4, ("B3",), "")) == STATISTIC
    assert judged(mean, ("sum", (2,), 3, ("3",), ""), ("mul", (2, 3), 4, ("3", ""), "3")) == ""


def test_what_does_not_reach_the_loss_does_not_count() -> None:
    assert judged(("mm", (1, 1), 2, ("B3", "3B"), "BB"), ("mean", (1,), 3, ("B3",), "")) == ""
    assert judged(("mm", (1, 1), 2, ("B3", "3B"), "BB"), ("mean", (2,), 3, ("BB",), "")) == PAIRS


def test_samples_that_meet_others_are_told_by_their_order() -> None:
    flip = ("flip", (1,), 2, ("B3",), "B3")
    assert judged(flip, ("add", (1, 2), 3, ("B3", "B3"), "B3")) == OTHERS
    again = ("flip", (2,), 3, ("B3",), "B3")
    assert judged(flip, again, ("add", (1, 3), 4, ("B3", "B3"), "B3")) == ""


def test_the_order_of_rows_is_followed_through_what_moves_them() -> None:
    start = Order((0, 1, 2, 3), 0)
    twice = order_after("view", None, [start], [(4, 2)], (8,), 0, 0)
    assert twice == Order((0, 0, 1, 1, 2, 2, 3, 3), 0)
    assert order_after("view", None, [twice], [(8,)], (4, 2), 0, 0) == start
    assert order_after("roll", ([1], [0]), [start], [(4,)], (4,), 0, 0) == Order((3, 0, 1, 2), 0)
    assert order_after("cat", 0, [start, start], [(4,), (4,)], (8,), 0, 0) == Order((0, 1, 2, 3) * 2, 0)
    assert order_after("split", (0, 4), [Order((0, 1) * 4, 0)], [(8,)], (4,), 0, 1) == Order((0, 1) * 2, 0)
    assert order_after("index", [(3, 2, 1, 0)], [start], [(4,)], (4,), 0, 0) == Order((3, 2, 1, 0), 0)
    assert order_after("index", ["?"], [start], [(4,)], (4,), 0, 0) is None


def test_losses_that_every_rank_computes_whole_agree_to_rounding() -> None:
    assert not lie_apart([1.0, 1.0 + 1e-7])
    assert not lie_apart([float("nan"), 1.0])
    assert not lie_apart([])
    assert lie_apart([1.0, 1.01])
