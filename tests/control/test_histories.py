"""Runs that lose attempts, from the machine to the view: what counts is the history of an undisturbed run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_train.control.live import LiveRun
from jupyter_train.control.messages import (
    Announce,
    CheckpointKept,
    ExitCause,
    Input,
    Launch,
    Placed,
    Queued,
    RankExited,
    RankReady,
    Remark,
    Report,
)
from jupyter_train.record import CheckpointPart, Event, EventKind, RunState, RunView, checkpoint_part, fold
from tests.control.conftest import spec
from tests.control.life import KILLED, STOPPED, places

RANKS = 2
STEPS = 12
EVERY = 3  #: steps between checkpoints

Told = tuple[EventKind, dict[str, Any]]


def loss(rank: int, step: int) -> float:
    return 100.0 * rank + 1.0 / (step + 1)


def told_by(
    rank: int, attempt: int, begin: int, first_number: int, flushed: list[bool], slow: int
) -> Iterator[Told]:
    """What a rank tells of the steps from ``begin`` on.

    Measurements wait until they are ``flushed``, and a checkpoint is on disk ``slow`` steps after it was taken.
    """
    waiting: list[int] = []
    writing: list[tuple[int, int]] = []  #: number and step
    number = first_number
    for step, is_flushed in zip(range(begin, STEPS), itertools.cycle(flushed), strict=False):
        waiting.append(step)
        is_kept = (step + 1) % EVERY == 0
        if is_flushed or is_kept or step == STEPS - 1:
            steps = np.array(waiting)
            columns = {"loss": {"step": steps, "value": np.array([loss(rank, s) for s in waiting])}}
            if rank == 0 and is_kept:
                columns["val"] = {"step": np.array([step]), "value": np.array([float(step)])}
            yield EventKind.METRICS, {"columns": columns}
            waiting = []
        if is_kept:
            yield EventKind.CHECKPOINT, {"number": number, "begun": True}
            writing.append((number, step + 1))
            number += 1
        while writing and (writing[0][1] + slow <= step + 1 or step == STEPS - 1):
            written, at = writing.pop(0)
            yield EventKind.CHECKPOINT, part(rank, attempt, written, at).to_payload()
            if written > first_number + 1:
                old = part(rank, attempt, written - 2, at - 2 * EVERY, dropped=True)
                yield EventKind.CHECKPOINT, old.to_payload()


def part(rank: int, attempt: int, number: int, step: int, *, dropped: bool = False) -> CheckpointPart:
    own = f".{rank}" if rank else ""
    file = f"checkpoint-{attempt}-{number}{own}.pt"
    return CheckpointPart(
        number=number, step=step, epoch=0, file=file, size_bytes=1, worker="w", dropped=dropped
    )


class Run:
    """A run whose machine decides and whose events are kept, with no cluster."""

    def __init__(self, retries: int) -> None:
        self.live = LiveRun(spec(RANKS, retries=retries), clock=lambda: 1.0)
        self.events: list[Event] = []
        self.launched: Launch | None = None
        self.feed(Queued(queue_place=0))

    def feed(self, given_input: Input) -> None:
        for command in self.live.machine.handle(given_input):
            if isinstance(command, Announce):
                self.keep(self.live.state_event(command))
            elif isinstance(command, Report):
                self.keep(self.live.error_event(command))
            elif isinstance(command, Remark):
                self.keep(self.live.remark_event(command.text))
            elif isinstance(command, Launch):
                self.launched = command

    def keep(self, event: Event) -> None:
        self.events += self.live.log.add([(event, None)]).events

    def tell(self, rank: int, attempt: int, told: Told) -> None:
        kind, payload = told
        self.keep(
            Event(
                run_id=self.live.spec.run_id,
                attempt=attempt,
                rank=rank,
                time=1.0,
                kind=kind,
                payload=payload,
            )
        )
        if kind is EventKind.CHECKPOINT and "begun" not in payload:
            self.feed(CheckpointKept(attempt=attempt, rank=rank, part=checkpoint_part(payload)))

    def attempt(self, data: st.DataObject, *, is_lost: bool) -> list[tuple[int, Told]]:
        """One attempt to its end; what its ranks had told but nobody heard comes back."""
        self.feed(Placed(places=places(RANKS)))
        assert self.launched is not None
        attempt, point = self.launched.attempt, self.launched.resume
        begin, number = (point.step, point.number + 1) if point is not None else (0, 1)
        flushed = st.lists(st.booleans(), min_size=1, max_size=5)
        slow = st.integers(0, 2 * EVERY)
        left = [
            list(told_by(r, attempt, begin, number, data.draw(flushed), data.draw(slow)))
            for r in range(RANKS)
        ]
        heard = data.draw(st.integers(0, sum(map(len, left)))) if is_lost else sum(map(len, left))
        for rank in range(RANKS):
            self.feed(RankReady(attempt=attempt, rank=rank))
        for _ in range(heard):
            rank = data.draw(st.sampled_from([r for r in range(RANKS) if left[r]]))
            self.tell(rank, attempt, left[rank].pop(0))
        for rank in range(RANKS):
            cause = (KILLED if rank else STOPPED) if is_lost else ExitCause(kind="done")
            self.feed(RankExited(attempt=attempt, rank=rank, cause=cause))
        return [(rank, told) for rank in range(RANKS) for told in left[rank]]


def points(view: RunView) -> dict[tuple[str, int], list[tuple[int, float]]]:
    return {
        (name, rank): list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
        for name, ranks in view.curves.items()
        for rank, curve in ranks.items()
    }


UNDISTURBED = {
    **{("loss", rank): [(s, loss(rank, s)) for s in range(STEPS)] for rank in range(RANKS)},
    ("val", 0): [(s, float(s)) for s in range(STEPS) if (s + 1) % EVERY == 0],
}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3), st.data())
def test_curves_of_a_run_that_lost_attempts_are_those_of_one_that_lost_none(
    losses: int, data: st.DataObject
) -> None:
    run = Run(retries=losses)
    for number in range(losses):
        late = run.attempt(data, is_lost=True)
        assert run.live.machine.state is RunState.RETRYING
        for rank, told in late[: data.draw(st.integers(0, len(late)))]:
            run.tell(rank, number + 1, told)  # from the file beside a rank, too late
    run.attempt(data, is_lost=False)
    view = fold(run.events)
    assert view.state is RunState.SUCCEEDED
    assert points(view) == UNDISTURBED
    assert view.errors == {}
    assert [past.attempt for past in view.past] == list(range(1, losses + 1))
    whole = run.live.machine.course.gathered.whole
    assert [(c.attempt, c.number) for c in view.checkpoints] == [(c.attempt, c.number) for c in whole]
    cut = data.draw(st.integers(1, len(run.events)))
    assert points(fold(run.events[cut:], fold(run.events[:cut]))) == UNDISTURBED
