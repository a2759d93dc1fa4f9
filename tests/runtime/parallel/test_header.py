"""Two ranks' headers over one board in this process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_train.errors import RanksDiverged
from jupyter_train.runtime.parallel.board import Life, SharedBoard, board_bytes
from jupyter_train.runtime.parallel.errors import PeerLost
from jupyter_train.runtime.parallel.header import Header, Kind
from jupyter_train.runtime.parallel.hostmemory import map_file, new_file
from jupyter_train.runtime.parallel.sites import Site, Sites

HERE = Site(file="<cell>", line=4, text="")
THERE = Site(file="<cell>", line=7, text="")


TOLD: list[str] = []  #: remarks of both


@pytest.fixture
def two(tmp_path: Path) -> list[Header]:
    TOLD.clear()
    path = new_file(board_bytes(2), [tmp_path])
    memory = map_file(path, board_bytes(2))
    assert memory is not None
    groups: Any = [SimpleNamespace(rank=r, world_size=2, on_wait=None) for r in range(2)]
    return [
        Header(SharedBoard(memory, r, 2), groups[r], Sites("<cell>"), patience_s=2.0, remark=TOLD.append)
        for r in range(2)
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
    two[1]._board.say_where(THERE.key)
    for _ in range(10):
        two[0].look(None)
    (told,) = TOLD
    assert told.startswith(
        "rank 1 is at line 7 while rank 0 waits for it at line 4 in backward(), for 2 s by now."
    )


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
