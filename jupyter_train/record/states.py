"""The states of a run and the moves between them."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands. ``LOST`` is what a reader says of a silent controller, never an event."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"

    @property
    def is_terminal(self) -> bool:
        """No event can follow but late logs of the ranks."""
        return self in _TERMINAL


_TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})

_MOVES: dict[RunState | None, frozenset[RunState]] = {
    None: frozenset({RunState.PENDING}),
    RunState.PENDING: frozenset({RunState.STARTING, RunState.FAILED, RunState.CANCELLED}),
    RunState.STARTING: frozenset(
        {RunState.RUNNING, RunState.STOPPING, RunState.RETRYING, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.RUNNING: frozenset(
        {RunState.STOPPING, RunState.RETRYING, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.RETRYING: frozenset({RunState.STARTING, RunState.FAILED, RunState.CANCELLED}),
    RunState.STOPPING: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}),
}


def legal_move(old: RunState | None, new: RunState) -> bool:
    """Whether a run in ``old`` (``None``: not yet known) may go to ``new``. Who waits may repeat it: its place in the queue changes."""
    if old is new and new in (RunState.PENDING, RunState.RETRYING):
        return True
    return new in _MOVES.get(old, frozenset())
