"""What a view says of attempts, checkpoints and the queue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jupyter_train.notebook.bundle import headline, make_bundle
from jupyter_train.record import Event, EventKind, ResumePoint, RunSpec, RunView, fold

RUN = "20261122-153000-ab12cd"
OTHER = "20261121-090000-cd34ef"
SPEC = RunSpec(run_id=RUN, name="digits", source="x = 1", ranks=1, retries=3)


class History:
    """A run that is told event by event."""

    def __init__(self, spec: RunSpec = SPEC) -> None:
        self.view = RunView(run_id=RUN)
        self.seq = 0
        self.state("PENDING", 0, spec=spec.to_dict(for_journal=True))

    def say(self, kind: EventKind, attempt: int, rank: int | None = None, **payload: Any) -> None:
        self.seq += 1
        event = Event(
            run_id=RUN,
            seq=self.seq,
            attempt=attempt,
            rank=rank,
            time=1_700_000_000.0 + self.seq,
            kind=kind,
            payload=payload,
        )
        self.view = fold([event], self.view)

    def state(self, state: str, attempt: int, **more: Any) -> None:
        self.say(EventKind.STATE, attempt, state=state, **more)

    def runs(self, attempt: int) -> None:
        self.state("STARTING", attempt)
        self.state("RUNNING", attempt)

    def keeps(self, attempt: int, number: int, step: int, **more: Any) -> None:
        file = f"checkpoint-{attempt}-{number}.pt"
        more = {"number": number, "step": step, "file": file, "size_bytes": 9, "worker": "w0", **more}
        self.say(EventKind.CHECKPOINT, attempt, 0, **more)

    def lost(self, attempt: int, reason: str, step: int | None = None) -> None:
        point = None
        if step is not None:
            point = self.view.checkpoints[-1].resume_point(RUN)
            assert point.step == step
        resume = {"resume": {**_plain(point)}} if point is not None else {}
        self.state("RETRYING", attempt, reason=reason, **resume)

    @property
    def text(self) -> str:
        return str(make_bundle(self.view, name="digits", now=1_700_000_100.0)["text/plain"])


def _plain(point: ResumePoint) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ResumePoint.__dataclass_fields__}


def test_a_run_that_waits_says_its_place_and_why() -> None:
    run = History()
    run.state("PENDING", 0, queue_place=2, reason="needs 4 workers, 1 is free")
    assert "PENDING: needs 4 workers, 1 is free · place 2 in the queue" in run.text
    run.runs(1)
    assert "queue" not in run.text


def test_a_reason_that_says_the_place_is_enough() -> None:
    run = History()
    run.state("PENDING", 0, queue_place=2, reason="number 2 in the queue: needs 4 workers")
    assert run.text.count("queue") == 1


def test_attempts_and_what_became_of_each_are_told() -> None:
    run = History()
    run.runs(1)
    run.keeps(1, 1, 430, epoch=2, batch=7)
    reason = "rank 0 was killed by signal 9; attempt 2 of 4 goes on from step 430 (epoch 2)"
    run.lost(1, reason, 430)
    assert run.text.count(reason) == 1, "by the headline"
    run.runs(2)
    assert "RUNNING · 1 rank · attempt 2 · " in run.text
    assert f"• attempt 1: {reason}" in run.text
    assert "checkpoints 1 kept, the newest at step 430 (epoch 2, batch 7)" in run.text


def test_an_attempt_is_told_once_also_where_a_remark_says_it() -> None:
    run = History()
    run.runs(1)
    run.say(EventKind.LOG, 1, stream="remark", text="attempt 1: rank 0 was killed by signal 9")
    run.say(EventKind.LOG, 1, stream="remark", text="attempt 7: is no attempt of this run")
    run.lost(1, "rank 0 was killed by signal 9; attempt 2 of 4 starts over")
    run.runs(2)
    assert run.text.count("attempt 1: ") == 1
    assert "attempt 7: " in run.text


def test_of_many_attempts_the_newest_are_told() -> None:
    run = History(replace(SPEC, retries=9))
    for attempt in range(1, 7):
        run.runs(attempt)
        run.lost(attempt, f"cause {attempt}")
    run.runs(7)
    assert "• 3 attempts before these were given up too\n  • attempt 4: cause 4" in run.text
    assert "cause 3" not in run.text


def test_without_retries_remarks_alone_tell_of_an_earlier_attempt() -> None:
    run = History(replace(SPEC, retries=0))
    run.runs(1)
    run.lost(1, "a loop cannot be split")
    run.runs(2)
    assert "attempt 2" in run.text
    assert "attempt 1" not in run.text


def test_the_run_that_it_was_resumed_from_is_named() -> None:
    point = ResumePoint(run_id=OTHER, attempt=2, number=5, step=400, epoch=3, files=("checkpoint-2-5.pt",))
    run = History(replace(SPEC, resume=point))
    assert f"• resumed from step 400 (epoch 3) of run {OTHER}" in run.text
    run.runs(1)
    run.lost(1, "lost; attempt 2 of 4 starts over")
    run.runs(2)
    assert "resumed from" not in run.text


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_only_what_goes_on_says_as_of_when(state: str) -> None:
    run = History()
    run.runs(1)
    assert " · as of 2023-11-1" in run.text
    assert "as of" not in headline(run.view, now=1_700_000_100.0), "what is said in a conversation is of now"
    run.state(state, 1)
    assert "as of" not in run.text
