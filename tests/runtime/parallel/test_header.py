"""Two ranks' headers over one board in this process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jupyter_train.errors import RanksDiverged
from jupyter_train.runtime.parallel.board import GatherBoard, Life, SharedBoard, board_bytes
from jupyter_train.runtime.parallel.errors import PeerLost
from jupyter_train.runtime.parallel.header import Header, Kind
from jupyter_train.runtime.parallel.hostmemory import map_file, new_file
from jupyter_train.runtime.parallel.sites import Site, Sites

HERE = Site(file="<cell>", line=4, text="")
THERE = Site(file="<cell>", line=7, text="")


TOLD: list[str] = []  #: remarks of both
WAITS: list[tuple[int, str]] = []  #: for whom, and how it hangs


@pytest.fixture
def two(tmp_path: Path) -> list[Header]:
    return headers(tmp_path, 2)


def headers(tmp_path: Path, ranks: int, *, hang_s: float = 0.0) -> list[Header]:
    TOLD.clear()
    WAITS.clear()
    path = new_file(board_bytes(ranks), [tmp_path])
    memory = map_file(path, board_bytes(ranks))
    assert memory is not None
    groups: Any = [SimpleNamespace(rank=r, world_size=ranks, on_wait=None) for r in range(ranks)]
    return [
        Header(
            SharedBoard(memory, r, ranks),
            groups[r],
            Sites("<cell>"),
            patience_s=2.0,
            hang_s=hang_s,
            remark=TOLD.append,
            waits=lambda rank, hung: WAITS.append((rank, hung)),
        )
        for r in range(ranks)
    ]


def test_whoever_comes_first_goes_on_and_whoever_agrees_too(two: list[Header]) -> None:
    for _ in range(70_000 // 1000):
        two[0].post(Kind.BACKWARD, HERE, batch=5)
        two[0].check()
        two[1].post(Kind.BACKWARD, HERE, batch=5)
        two[1].check()
        two[0].look(None)


def test_the_second_sees_that_it_is_elsewhere_and_then_the_first_does(two: list[Header]) -> None:
    two[0].post(Kind.BACKWARD, HERE)
    two[0].check()
    two[1].post(Kind.COLLECTIVE, THERE)
    wanted = r"rank 0: line 4 in backward\(\), call 1; rank 1: line 7 in train.sum, mean or gather, call 1"
    with pytest.raises(RanksDiverged, match=wanted):
        two[1].check()
    with pytest.raises(RanksDiverged, match=wanted):
        two[0].look(None)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"batch": 2}, "work on different batches"),
        ({"rates": 2}, "different learning rates, or only some of them did an optimizer step"),
        ({"loss": 2}, "different terms"),
    ],
)
def test_the_same_line_with_something_else_says_what(
    two: list[Header], other: dict[str, int], reason: str
) -> None:
    two[0].post(Kind.BACKWARD, HERE)
    two[1].post(Kind.BACKWARD, HERE, **other)
    with pytest.raises(RanksDiverged, match=reason):
        two[1].check()


def test_a_rank_that_has_finished_never_comes(two: list[Header]) -> None:
    two[0].post(Kind.BACKWARD, HERE)
    two[1].live(Life.FINISHED)
    with pytest.raises(RanksDiverged, match="rank 1: finished the cell"):
        two[0].look(None)


def test_a_rank_that_finished_after_taking_part_is_no_trouble(two: list[Header]) -> None:
    for header in two:
        header.post(Kind.BACKWARD, HERE)
    two[1].live(Life.FINISHED)
    two[0].look(None)


def test_a_failed_rank_is_a_lost_peer_and_so_is_a_broken_connection(two: list[Header]) -> None:
    two[0].post(Kind.BACKWARD, HERE)
    two[0].look(None)
    with pytest.raises(PeerLost, match="another rank was lost while this rank was at line 4"):
        two[0].look(RuntimeError("Connection closed by peer"))
    two[1].live(Life.FAILED)
    two[1].live(Life.FINISHED)
    with pytest.raises(PeerLost, match="rank 1 failed while this rank was at line 4"):
        two[0].look(None)


def test_a_rank_that_is_long_waited_for_is_named_once_with_its_line(two: list[Header]) -> None:
    two[0].post(Kind.BACKWARD, HERE)
    for _ in range(3):
        two[0].look(None)
    assert two[1]._board.is_asked()
    assert not TOLD
    two[1]._board.say_where(THERE.key, 1)
    for _ in range(10):
        two[0].look(None)
    (told,) = TOLD
    assert told.startswith(
        "rank 1 is at line 7 while rank 0 waits for it at line 4 in backward(), for 2 s by now."
    )
    assert WAITS == [(1, "")], "its stacks are asked for, once"


def test_a_rank_that_holds_python_up_does_not_answer(two: list[Header]) -> None:
    two[1].post(Kind.NORM, HERE)
    for _ in range(4):
        two[1].look(None)
    assert "rank 0 does not answer while rank 1 waits for it at line 4" in TOLD[0]


def test_ranks_that_come_in_time_are_not_asked(two: list[Header]) -> None:
    for _ in range(9):
        for header in two:
            header.post(Kind.BACKWARD, HERE)
            header.look(None)
    assert not two[0]._board.is_asked()


def test_a_rank_without_a_sign_of_life_is_given_up_once_a_time_out(tmp_path: Path) -> None:
    two = headers(tmp_path, 2, hang_s=5.0)
    two[0].post(Kind.BACKWARD, HERE)
    two[1]._board.say_where(THERE.key, 3)
    for _ in range(11):
        two[0].look(None)
    assert not any(hung for _, hung in WAITS), "it gave one when it was first seen, 1 s after the wait began"
    for _ in range(3):
        two[0].look(None)
    assert [one for one in WAITS if one[1]] == [
        (
            1,
            "it is at line 7 and gave no sign of life for 5 s, while rank 0 waits for it at line 4 in backward()",
        )
    ]


def test_a_rank_that_gives_signs_of_life_is_waited_for(tmp_path: Path) -> None:
    two = headers(tmp_path, 2, hang_s=5.0)
    two[0].post(Kind.BACKWARD, HERE)
    for look in range(100):
        two[1]._board.say_where(THERE.key, look // 8)
        two[0].look(None)
    assert WAITS == [(1, "")]


def test_a_rank_that_cannot_answer_at_all_is_given_up_too(tmp_path: Path) -> None:
    two = headers(tmp_path, 2, hang_s=1.0)
    two[1].post(Kind.BACKWARD, HERE)
    for _ in range(4):
        two[1].look(None)
    assert WAITS[0][0] == 0
    assert WAITS[0][1].startswith("it does not answer and gave no sign of life for 1 s")


def test_of_several_ranks_the_one_that_all_wait_for_is_given_up(tmp_path: Path) -> None:
    three = headers(tmp_path, 3, hang_s=5.0)
    three[0].post(Kind.BACKWARD, HERE)
    three[2].post(Kind.BACKWARD, HERE)
    for _ in range(12):
        three[0].look(None)
        three[2].look(None)
    assert [(rank, bool(hung)) for rank, hung in WAITS] == [(1, False), (1, True)], "and one rank says it"


def test_each_wait_begins_anew(tmp_path: Path) -> None:
    two = headers(tmp_path, 2, hang_s=5.0)
    for _ in range(10):
        for _ in range(8):
            two[1].post(Kind.BACKWARD, HERE)
            two[0].post(Kind.BACKWARD, HERE)
        two[0].post(Kind.BACKWARD, HERE)
        for _ in range(6):
            two[0].look(None)
        two[1].post(Kind.BACKWARD, HERE)
    assert not any(hung for _, hung in WAITS)


class BrokenStore:
    """The store of a run whose rank 0 has ended."""

    def check(self, keys: list[str]) -> bool:
        raise RuntimeError("Broken pipe")

    def set(self, key: str, value: str) -> None:
        raise RuntimeError("Broken pipe")


def test_a_rank_that_parts_as_the_store_goes_says_its_own_line() -> None:
    """Rank 0 of several hosts noticed it first, and took the store with it."""
    groups: Any = SimpleNamespace(rank=1, world_size=2, on_wait=None, store=BrokenStore())
    board = GatherBoard(groups)
    header = Header(board, groups, Sites("<cell>"))
    row = [1, 3, int(Kind.BACKWARD), HERE.key, 0, 0, 0, 0]
    board._row = torch.tensor(row, dtype=torch.int64)
    with pytest.raises(
        RanksDiverged, match=r"rank 0: ended before it could .*; rank 1: line 4 in backward\(\), call 3"
    ):
        header.part()
