"""Attempts that are lost, and those that follow them, as sentences. No cluster, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyter_train.control.again import keeps_checkpoints
from jupyter_train.control.machine import STACKS_S
from jupyter_train.control.messages import (
    Announce,
    CheckpointKept,
    Command,
    ExitCause,
    Launch,
    LaunchFailed,
    PlaceAgain,
    Queued,
    RankErred,
    RankHung,
    RankReady,
    Remark,
    Report,
    SetTimer,
    SpoolRead,
    StacksDeadline,
    StacksTaken,
    StopRequested,
    TakeStacks,
    Timer,
    WorkerLost,
)
from jupyter_train.record import CheckpointPart, ResumePoint, RunSpec, RunState
from tests.control.life import (
    AGAIN,
    ERROR,
    KILLED,
    LOOP,
    STOPPED,
    Life,
    places,
    reports,
    stops,
)

# A rank is lost, and another attempt goes on


def kept(life: Life, number: int, *, ranks: int | None = None, dropped: bool = False, of: int = 0) -> None:
    """The ranks of the newest attempt (the first ``ranks`` of them) tell their parts of a checkpoint."""
    attempt = life.machine.attempt
    for rank in range(life.ranks if ranks is None else ranks):
        life(CheckpointKept(attempt=attempt, rank=rank, part=part(of or attempt, number, rank, dropped)))


def part(attempt: int, number: int, rank: int = 0, dropped: bool = False) -> CheckpointPart:
    own = f".{rank}" if rank else ""
    return CheckpointPart(
        number=number,
        step=10 * number,
        epoch=number // 2,
        file=f"checkpoint-{attempt}-{number}{own}.pt",
        size_bytes=5,
        worker=f"w{rank}",
        dropped=dropped,
    )


def launch(commands: list[Command]) -> Launch:
    (found,) = (c for c in commands if isinstance(c, Launch))
    return found


def retrying(life: Life) -> list[str]:
    return [c.reason for c in life.commands if isinstance(c, Announce) and c.state is RunState.RETRYING]


def resumed_at(commands: list[Command]) -> int | None:
    """The step from which an attempt goes on; None: from the start."""
    point = launch(commands).resume
    return None if point is None else point.step


def test_a_lost_rank_is_followed_by_an_attempt_from_the_newest_checkpoint() -> None:
    life = Life(retries=3).running()
    kept(life, 1)
    kept(life, 2)
    assert stops(life.exits(1, KILLED)) == [("fail", ("w0",))]
    commands = life.exits(0, STOPPED)
    reason = "rank 1 was killed by signal 9; attempt 2 of 4 goes on from step 20 (epoch 1)"
    point = life.machine.course.begin
    assert commands == [
        Remark(text=f"attempt 1: {reason}"),
        Announce(state=RunState.RETRYING, reason=reason, resume=point),
        PlaceAgain(workers=("w0", "w1")),
    ]
    assert launch(life.placed_again()) == Launch(attempt=2, places=places(2), resume=point)
    assert point is not None
    assert point.files == ("checkpoint-1-2.pt", "checkpoint-1-2.1.pt")
    assert point.workers == ("w0", "w1")
    life(RankReady(attempt=2, rank=0), RankReady(attempt=2, rank=1))
    life.exits(0)
    life.exits(1)
    assert life.end == (RunState.SUCCEEDED, "")


def test_only_a_checkpoint_of_all_ranks_that_is_still_there_is_gone_on_from() -> None:
    life = Life(retries=1).running()
    kept(life, 1)
    kept(life, 2)
    kept(life, 2, ranks=1, dropped=True)  # the other rank has not come to it
    kept(life, 3, ranks=1)
    life.exits(1, KILLED)
    life.exits(0, STOPPED)
    assert resumed_at(life.placed_again()) == 10


def test_checkpoints_of_all_attempts_count_and_a_later_one_may_drop_those_of_an_earlier() -> None:
    life = Life(1, retries=5).running()
    kept(life, 1)
    life.exits(0, KILLED)
    assert resumed_at(life.placed_again()) == 10
    life.exits(0, KILLED)
    assert resumed_at(life.placed_again()) == 10, "the second attempt came to none"
    kept(life, 2)
    kept(life, 1, of=1, dropped=True)
    life(CheckpointKept(attempt=1, rank=0, part=part(1, 9)))
    life.exits(0, KILLED)
    assert resumed_at(life.placed_again()) == 20
    kept(life, 2, of=3, dropped=True)
    life.exits(0, KILLED)
    assert resumed_at(life.placed_again()) is None


def test_without_a_checkpoint_it_starts_over_and_says_so() -> None:
    for told in (0, 1):
        life = Life(retries=1).running()
        kept(life, 1, ranks=told)
        life.exits(1, KILLED)
        life.exits(0, STOPPED)
        (reason,) = retrying(life)
        assert reason.startswith("rank 1 was killed by signal 9; attempt 2 of 2 starts over: ")
        assert reason.endswith(
            "no checkpoint of a loop over train.epochs was on disk yet"
            if told
            else "the cell keeps no checkpoint (train.epochs, train.checkpoint)"
        )
        assert resumed_at(life.placed_again()) is None


def test_a_checkpoint_outside_of_the_epochs_does_not_say_where_to_go_on() -> None:
    life = Life(retries=1).running()
    kept(life, 1)
    for rank in range(life.ranks):
        life(CheckpointKept(attempt=1, rank=rank, part=replace(part(1, 2, rank), epoch=None)))
    life.exits(1, KILLED)
    life.exits(0, STOPPED)
    assert resumed_at(life.placed_again()) == 10


@pytest.mark.parametrize(
    ("source", "definitions", "keeps"),
    [
        ("for e in train.epochs(3): pass", {}, True),
        ("fit()", {"fit": "def fit():\n    train.checkpoint(model=m)"}, True),
        ("for e in range(3): torch.utils.checkpoint.checkpoint(f, x)", {"fit": "pass"}, False),
    ],
)
def test_whether_a_cell_keeps_checkpoints_is_read_in_its_code(
    source: str, definitions: dict[str, str], keeps: bool
) -> None:
    asked = RunSpec(run_id="r", name="n", source=source, ranks=1, provenance={"definitions": definitions})
    assert keeps_checkpoints(asked) is keeps


def test_a_run_that_began_from_another_ones_checkpoint_begins_there_again() -> None:
    point = ResumePoint(run_id="other", attempt=1, number=4, step=44, files=("checkpoint-1-4.pt",))
    life = Life(retries=1, resume=point).starting()
    assert launch(life.commands).resume == point
    life.exits(0, KILLED)
    life.exits(1, STOPPED)
    assert retrying(life)[0].endswith("begins again from step 44 of run other")
    assert launch(life.placed_again()).resume == point


def test_retries_have_an_end() -> None:
    life = Life(1, retries=2).running()
    for _ in range(2):
        life.exits(0, KILLED)
        life.placed_again()
    life.exits(0, KILLED)
    state, reason = life.end
    assert state is RunState.FAILED
    assert reason.startswith("RankLost: the process of rank 0 was killed by SIGKILL")
    assert reason.endswith("attempt 3 of 3 was the last")


def test_an_error_of_the_cell_is_not_tried_again() -> None:
    life = Life(retries=3).running()
    life.errs(1)
    life.exits(1, ERROR)
    life.exits(0, STOPPED)
    assert life.end == (RunState.FAILED, "ValueError: bad 1")


def test_an_error_whose_event_was_lost_is_not_tried_again() -> None:
    life = Life(1, retries=3).running()
    life.exits(0, ERROR)
    assert life.end[0] is RunState.FAILED


def test_what_others_meet_of_a_loss_is_not_its_cause() -> None:
    life = Life(retries=1).running()
    life.errs(0, secondary=True)
    life.exits(0, ERROR)
    life.exits(1, KILLED)
    assert retrying(life)[0].startswith("rank 1 was killed by signal 9; ")


def test_an_error_that_follows_from_a_loss_is_no_error_of_the_cell() -> None:
    life = Life(retries=1).running()
    life.exits(1, KILLED)
    life.errs(0)  # a cell that catches everything may raise what it likes
    life.exits(0, ERROR)
    assert life.machine.state is RunState.RETRYING


def test_the_error_behind_a_consequence_is_an_error_of_the_cell() -> None:
    life = Life(retries=1).running()
    life.errs(0, secondary=True)
    life.errs(1)
    life.exits(0, ERROR)
    life.exits(1, ERROR)
    assert life.end == (RunState.FAILED, "ValueError: bad 1")


def test_ranks_that_lost_each_other_are_a_loss_although_nobody_knows_why() -> None:
    life = Life(retries=1).running()
    life.errs(0, secondary=True)
    life.errs(1, secondary=True)
    life.exits(0, ERROR)
    life.exits(1, ERROR)
    assert retrying(life)[0].startswith("rank 0 ended with ValueError: bad 0; attempt 2 of 2 ")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (KILLED, "rank 0 was killed by signal 9; "),
        (ExitCause(kind="signal", signal=9, out_of_memory=True), "rank 0 was killed: out of memory; "),
        (ExitCause(kind="signal", signal=11), "rank 0 was killed by signal 11; "),
        (ExitCause(kind="exit", code=3), "rank 0 left with exit code 3; "),
        (ExitCause(kind="lost", text="its zygote died"), "rank 0 was lost (its zygote died); "),
        (STOPPED, "rank 0 was stopped by worker 0 on h (w0), which closes; "),
    ],
)
def test_causes_are_named(cause: ExitCause, words: str) -> None:
    life = Life(1, retries=1).running()
    life.exits(0, cause)
    assert retrying(life)[0].startswith(words)


def test_a_launch_that_fails_is_tried_again() -> None:
    life = Life(1, retries=1).starting()
    life(LaunchFailed(attempt=1, worker="w0", type="OSError", message="no port"))
    assert retrying(life)[0].startswith("rank 0 could not be launched (OSError: no port); ")


def test_a_lost_worker_is_waited_for_and_the_reason_says_so() -> None:
    life = Life(retries=1).running()
    life(WorkerLost(worker="w1"))
    life.exits(0, STOPPED)
    assert not retrying(life), "its last events may tell of a checkpoint"
    kept(life, 1)
    life(SpoolRead(worker="w1"))
    why = "worker 1 on h was lost, and rank 1 with it; attempt 2 of 2 goes on from step 10 (epoch 0)"
    assert retrying(life) == [why]
    queued = Queued(queue_place=1, reason="needs 2 workers, 1 of 2 free")
    point = life.machine.course.begin
    told = Announce(state=RunState.RETRYING, reason=f"{why}; {queued.reason}", queue_place=1, resume=point)
    assert life(queued) == [told]
    assert not life(queued)
    assert launch(life.placed_again()).attempt == 2


def test_a_host_whose_workers_are_missed_one_after_the_other_is_named() -> None:
    life = Life(3, retries=1).running()
    life(WorkerLost(worker="w1"), WorkerLost(worker="w0"), WorkerLost(worker="w2", is_host_lost=True))
    life(SpoolRead(worker="w0"), SpoolRead(worker="w1"), SpoolRead(worker="w2"))
    assert retrying(life)[0].startswith("host h was lost, and ranks 0, 1, 2 with it; ")


def test_a_stop_holds_whatever_was_to_be_tried_again() -> None:
    for moment in (0, 1, 2):  # while its ranks end, while it waits for workers, while the next attempt starts
        life = Life(retries=5).running()
        life.exits(0, KILLED)
        if moment:
            life.exits(1, STOPPED)
        if moment == 2:
            life.placed_again()
        life(StopRequested(reason="stopped by hand"))
        if moment != 1:
            life.exits(0, STOPPED)
            life.exits(1, STOPPED)
        assert life.end == (RunState.CANCELLED, "stopped by hand")


def test_starting_over_uses_up_no_retry_and_no_checkpoint_outlives_it() -> None:
    life = Life(1, retries=1).running()
    kept(life, 1)
    life.exits(0, AGAIN)
    assert resumed_at(life.placed_again()) is None, "what was trained before was not split as it should be"
    life.exits(0, KILLED)
    assert retrying(life)[1].startswith("rank 0 was killed by signal 9; attempt 3 of 3 starts over")
    commands = life.placed_again()
    assert (launch(commands).whole, launch(commands).attempt) == ((LOOP,), 3)


def test_what_a_lost_attempt_has_found_counts() -> None:
    life = Life(retries=1).running()
    kept(life, 1)
    life.exits(1, KILLED)
    life.exits(0, AGAIN)
    assert retrying(life) == [LOOP.why]
    commands = life.placed_again()
    assert (launch(commands).whole, launch(commands).resume) == ((LOOP,), None)


def unread(life: Life) -> list[Command]:
    """Rank 0 cannot read the checkpoint that the attempt begins from, and the attempt ends."""
    attempt = life.machine.attempt
    erred = life(RankErred(attempt=attempt, rank=0, type="CheckpointUnreadable", message="it is missing"))
    return [
        *erred,
        *(c for rank in range(life.ranks) for c in life.exits(rank, ERROR if rank == 0 else STOPPED)),
    ]


def test_a_checkpoint_that_cannot_be_read_costs_no_retry_and_the_one_before_it_is_tried() -> None:
    life = Life(retries=1).running()
    for number in (1, 2, 3):
        kept(life, number)
    life.exits(1, KILLED)
    life.exits(0, STOPPED)
    assert resumed_at(life.placed_again()) == 30
    unread(life)
    assert retrying(life)[-1] == (
        "rank 0 could not read the checkpoint (it is missing); attempt 3 of 3 goes on from step 20 (epoch 1)"
    )
    assert resumed_at(life.placed_again()) == 20
    unread(life)
    assert resumed_at(life.placed_again()) is None, "then they are probably all gone"
    life.exits(0, KILLED)
    life.exits(1, STOPPED)
    assert life.end[1].endswith("attempt 4 of 4 was the last")


def test_a_checkpoint_of_another_run_that_cannot_be_read_is_an_error() -> None:
    point = ResumePoint(run_id="other", attempt=1, number=4, step=44, files=("checkpoint-1-4.pt",))
    life = Life(retries=1, resume=point).starting()
    unread(life)
    assert life.end == (RunState.FAILED, "CheckpointUnreadable: it is missing")


# A rank hangs


HUNG = RankHung(attempt=1, rank=1, text="it has not moved for 300 s")


def test_a_rank_that_hangs_is_ended_once_its_stacks_are_on_record() -> None:
    life = Life(retries=1).running()
    assert life(HUNG) == [
        TakeStacks(attempt=1, worker="w1", rank=1),
        SetTimer(timer=Timer.STACKS, after_s=STACKS_S),
    ]
    assert not life(HUNG), "once is enough"
    assert not life(StacksTaken(attempt=1, rank=0, text="of another rank"))
    report, *rest = life(StacksTaken(attempt=1, rank=1, text="File cell, line 4"))
    assert report == Report(
        rank=1,
        type="RankLost",
        message="rank 1 on worker 1 (h) hung while others waited for it: it has not moved for 300 s",
        cause="hung",
        text="File cell, line 4",
    )
    assert stops(rest) == [("fail", ("w0", "w1"))]
    assert not life(StacksDeadline())
    life.exits(0, STOPPED)
    life.exits(1, KILLED)
    assert retrying(life)[0].startswith("rank 1 hung; attempt 2 of 2 ")
    assert len(reports(life.commands)) == 1, "our own order killed it"


def test_a_rank_that_hangs_is_ended_without_its_stacks_too() -> None:
    life = Life().running()
    life(HUNG)
    assert reports(life(StacksDeadline())) == [(1, "RankLost", "hung")]
    life.exits(0, STOPPED)
    life.exits(1, STOPPED)
    assert life.end[0] is RunState.FAILED


def test_a_rank_that_is_gone_meanwhile_did_not_hang() -> None:
    life = Life().running()
    life(HUNG)
    life.exits(1)
    assert not reports(life(StacksDeadline()))
    life.exits(0)
    assert life.end == (RunState.SUCCEEDED, "")
    assert not Life().running()(RankHung(attempt=2, rank=0, text=""), RankHung(attempt=1, rank=7, text=""))
