"""What the machine of a run hears, and what it asks for: frozen data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from jupyter_train.control.placement import Place
from jupyter_train.record import CheckpointPart, ResumePoint, RunState, WholeLoop

Mode = Literal["stop", "fail", "kill"]
"""How an agent ends its rank: unwind the cell within seconds, at once because another failed, or SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCause:
    """Why a rank's process ended, as its agent tells."""

    kind: str  #: done, error, again, stopped, signal, exit, lost; anything else is taken for exit
    signal: int = 0
    code: int = 0
    text: str = ""
    out_of_memory: bool | None = None  #: whether it was killed for want of memory; None: not known
    whole: tuple[WholeLoop, ...] = ()  #: with "again": what this rank found


# Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The run was submitted, or its place in the queue or what it waits for has changed."""

    queue_place: int  #: from 1; 0: it is placed in the same breath
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """All ranks have their workers."""

    places: tuple[Place, ...]  #: by rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """An agent has forked its rank."""

    attempt: int
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFailed:
    """An agent has not forked its rank, and will not."""

    attempt: int
    worker: str
    type: str  #: class of the error
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RankReady:
    """A rank begins the cell."""

    attempt: int
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankErred:
    """A rank's cell ended with an exception; its process still packs what comes back."""

    attempt: int
    rank: int
    type: str
    message: str
    secondary: bool = False  #: it only met the consequences of another rank's end


@dataclass(frozen=True, slots=True, kw_only=True)
class RankExited:
    """The process of a rank is gone, with all its children."""

    attempt: int
    rank: int
    cause: ExitCause


@dataclass(frozen=True, slots=True, kw_only=True)
class RankHung:
    """A rank that the others wait for does nothing any more."""

    attempt: int
    rank: int
    text: str  #: what it was found doing, one sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class StacksTaken:
    """What a rank that hangs was doing is on record, as far as it could be found out."""

    attempt: int
    rank: int
    text: str = ""  #: the stacks of its threads, for the error; empty: they could not be had


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointKept:
    """A rank has written its part of a checkpoint, or removed it."""

    attempt: int
    rank: int
    part: CheckpointPart


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """A worker left the cluster, and its rank with it."""

    worker: str
    is_host_lost: bool = False  #: it was the last one on its host, which is not the scheduler's own


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolRead:
    """What could be read of the events that a lost worker's rank left on disk has been recorded."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """Somebody wants the run to end."""

    force: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutReached:
    """The time given by --timeout is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDeadline:
    """Ranks that were to be started should have begun the cell by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StacksDeadline:
    """The stacks of a rank that hangs should have been taken by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillDeadline:
    """Ranks that were told to end should have ended long ago."""


Input = (
    Queued
    | Placed
    | Launched
    | LaunchFailed
    | RankReady
    | RankErred
    | RankExited
    | RankHung
    | StacksTaken
    | CheckpointKept
    | WorkerLost
    | SpoolRead
    | StopRequested
    | TimeoutReached
    | StartDeadline
    | StacksDeadline
    | KillDeadline
)


# Commands


class Timer(StrEnum):
    """A run has at most one of each; setting it again moves it."""

    START = "start"  #: rings StartDeadline
    TIMEOUT = "timeout"  #: rings TimeoutReached
    STACKS = "stacks"  #: rings StacksDeadline
    KILL = "kill"  #: rings KillDeadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Record the new state."""

    state: RunState
    reason: str = ""
    places: tuple[Place, ...] = ()  #: with STARTING
    queue_place: int = 0  #: of a run that waits, from 1
    whole: tuple[WholeLoop, ...] = ()  #: with RETRYING: all that were found so far
    resume: ResumePoint | None = None  #: with RETRYING: where the next attempt goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Record an error that no rank could record itself."""

    rank: int | None
    type: str
    message: str
    cause: str  #: signal, exit, lost, hung, timeout, launch
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Record one sentence for the user."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Have the agents fork these ranks."""

    attempt: int
    places: tuple[Place, ...]
    whole: tuple[WholeLoop, ...] = ()  #: found in earlier attempts
    resume: ResumePoint | None = None  #: the checkpoint to begin from


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRanks:
    """Have these agents end their ranks."""

    attempt: int
    workers: tuple[str, ...]
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpool:
    """Record what a lost worker's rank left on disk, then say SpoolRead; within half a second."""

    attempt: int
    worker: str
    host: str
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeStacks:
    """Put the stacks of a rank that hangs on record, then say StacksTaken."""

    attempt: int
    worker: str
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimer:
    """Ring after a while."""

    timer: Timer
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """The run has ended: these workers may take the next one."""

    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """The run has ended without news of these workers' ranks: free each once its agent answers again."""

    attempt: int
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceAgain:
    """An attempt was given up: these workers are free, and the run is the first to be placed."""

    workers: tuple[str, ...]


Command = (
    Announce
    | Report
    | Remark
    | Launch
    | StopRanks
    | ReadSpool
    | TakeStacks
    | SetTimer
    | Free
    | Abandon
    | PlaceAgain
)
