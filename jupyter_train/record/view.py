"""What the events of a run amount to: all that anything ever shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyter_train.record.checkpoint import Checkpoint, Gathered, ResumePoint
from jupyter_train.record.curve import Curves
from jupyter_train.record.proof import Proof
from jupyter_train.record.spec import RunSpec, WholeLoop
from jupyter_train.record.states import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One progress bar of one rank."""

    label: str
    done: int
    total: int | None
    note: str = ""  #: what is said behind it: how fast, a loss


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One piece of text that a rank, an agent or the controller wrote."""

    time: float
    rank: int | None
    stream: str  #: stdout, stderr, remark, display
    text: str
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReading:
    """What one rank (with its children) used at a time."""

    time: float
    cpu_cores: float  #: cores kept busy since the last reading
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    """An attempt that was given up, and how the run went on."""

    attempt: int
    time: float  #: unix time at which it was given up
    reason: str
    resume: ResumePoint | None = None  #: from which the next one goes on; None: from the start


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """Everything a reader shows of one run."""

    run_id: str
    seq: int = 0  #: number of the newest event in here
    state: RunState | None = None
    reason: str = ""  #: why it is in this state, where there is something to say
    attempt: int = 0
    queue_place: int = 0  #: from 1, while it waits for workers; 0: it does not
    given_up: int = 0  #: attempts up to this one were: what they tell from now on is of the past
    past: tuple[PastAttempt, ...] = ()  #: the attempts that were given up, oldest first
    whole: tuple[WholeLoop, ...] = ()  #: loops found not to be splittable, by this run or an earlier one
    spec: RunSpec | None = None
    placement: tuple[Mapping[str, Any], ...] = ()  #: per rank: rank, local_rank, worker, host
    changes: tuple[tuple[float, RunState], ...] = ()  #: every state with its time
    curves: Curves = field(default_factory=dict)  #: name → rank → curve
    usage: Mapping[int, tuple[UsageReading, ...]] = field(
        default_factory=dict
    )  #: per rank; thinned in long runs
    progress: Mapping[tuple[int, str], Progress] = field(default_factory=dict)  #: (rank, bar id)
    log: tuple[LogLine, ...] = ()  #: the newest LOG_LINES_KEPT
    remarks: tuple[str, ...] = ()
    errors: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  #: per rank; −1: no rank's
    artifacts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    machines: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  #: per rank: what it ran on last
    proof: Proof | None = None  #: whether it trains what one process would, once that is known
    gathered: Gathered = field(default_factory=Gathered)  #: what the ranks told of checkpoints
    #: (attempt, number) of a checkpoint → rank → name → points that the rank's curve had then
    marks: Mapping[tuple[int, int], Mapping[int, Mapping[str, int]]] = field(default_factory=dict)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Those that every rank has written and that are still kept, oldest first."""
        return self.gathered.whole

    @property
    def resume(self) -> ResumePoint | None:
        """The checkpoint that the newest attempt began from, or will; it may be another run's."""
        if self.past:
            return self.past[-1].resume
        return self.spec.resume if self.spec is not None else None

    @property
    def started(self) -> float | None:
        """Unix time of the first PENDING."""
        return self.changes[0][0] if self.changes else None

    @property
    def running_since(self) -> float | None:
        """Unix time of the newest attempt's RUNNING."""
        times = [t for t, s in self.changes if s is RunState.RUNNING]
        return times[-1] if times else None

    @property
    def ended(self) -> float | None:
        """Unix time of the end; None while it goes on."""
        return self.changes[-1][0] if self.state is not None and self.state.is_terminal else None
