"""How an agent ends its rank, as a plan: what to do when, until the process is gone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

Mode = Literal["stop", "fail", "kill"]

STOP_RAISE_S = 2.0  #: a rank that reaches no optimizer step gets the exception this long after the request
STOP_KILL_S = 4.0
#: Ranks run the same cell, so most errors are met by all of them, some milliseconds apart. Left alone for this
#: long, a rank meets the error by itself: the names it bound before come back, and the error is shown as common to all.
FAIL_RAISE_S = 0.3
FAIL_KILL_S = 0.7
REPEAT_S = 0.25  #: the exception again, for a cell that caught it
PACKING_S: dict[Mode, float] = {
    "stop": 60.0,
    "fail": 5.0,
    "kill": 0.0,
}  #: for writing results once the cell has ended


class Step(Enum):
    """One thing to do to a rank."""

    ASK = "set its stop flag"
    RAISE = "raise StopRun in its main thread"
    KILL = "kill its group"


@dataclass(frozen=True, slots=True)
class Due:
    """A step and when it is due, in seconds since the request."""

    after_s: float
    step: Step


def plan(mode: Mode) -> Iterator[Due]:
    """What to do to a rank that is still in its cell, in order of time."""
    match mode:
        case "stop":
            yield Due(0.0, Step.ASK)
            yield from _raises(STOP_RAISE_S, STOP_KILL_S)
            yield Due(STOP_KILL_S, Step.KILL)
        case "fail":
            yield Due(FAIL_RAISE_S, Step.ASK)
            yield from _raises(FAIL_RAISE_S, FAIL_KILL_S)
            yield Due(FAIL_KILL_S, Step.KILL)
        case "kill":
            yield Due(0.0, Step.KILL)


def kill_after(mode: Mode, *, left_after_s: float | None) -> float:
    """Seconds from the request until the rank is killed.

    Args:
        mode: how it was asked to end.
        left_after_s: when its cell ended, in seconds since the request (negative: before it); None while it runs.
    """
    if left_after_s is None:
        return {"stop": STOP_KILL_S, "fail": FAIL_KILL_S, "kill": 0.0}[mode]
    return max(0.0, left_after_s) + PACKING_S[mode]


def _raises(start: float, end: float) -> Iterator[Due]:
    at = start
    while at < end:
        yield Due(at, Step.RAISE)
        at += REPEAT_S
