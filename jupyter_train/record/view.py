"""What the events of a run amount to: one pure function, shared by magic, view, server and tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jupyter_train.record.events import Event, EventKind
from jupyter_train.record.proof import Proof
from jupyter_train.record.spec import RunSpec, WholeLoop, whole_loops
from jupyter_train.record.states import RunState, legal_move

LOG_LINES_KEPT = 2000
LOG_LINE_CHARACTERS = 8192  #: of each, the last ones
USAGE_READINGS_KEPT = 4096
_CHUNKS_MERGED_AT = 64


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric of one rank: a value at a step. Chunks are merged now and then, so that appending stays cheap."""

    chunks: tuple[tuple[NDArray[np.int64], NDArray[np.float64]], ...] = ()

    def extended(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> Curve:
        """This curve with more points behind it."""
        if not len(steps):
            return self
        chunks = (*self.chunks, (steps, values))
        if len(chunks) <= _CHUNKS_MERGED_AT:
            return Curve(chunks)
        # Only as far back as chunks are small: each point is copied log(n) times, not once per merge.
        first, points = len(chunks) - 1, len(steps)
        while first and len(chunks[first - 1][0]) <= 2 * points:
            first -= 1
            points += len(chunks[first][0])
        small = chunks[first:]
        merged = (np.concatenate([c[0] for c in small]), np.concatenate([c[1] for c in small]))
        return Curve((*chunks[:first], merged))

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps, shape ``(points,)``."""
        return np.concatenate([c[0] for c in self.chunks]) if self.chunks else np.empty(0, np.int64)

    @property
    def values(self) -> NDArray[np.float64]:
        """Values, shape ``(points,)``; NaN and infinity are results."""
        return np.concatenate([c[1] for c in self.chunks]) if self.chunks else np.empty(0, np.float64)

    @property
    def last(self) -> tuple[int, float] | None:
        """The newest point."""
        if not self.chunks:
            return None
        steps, values = self.chunks[-1]
        return int(steps[-1]), float(values[-1])


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
class RunView:
    """Everything a reader shows of one run."""

    run_id: str
    seq: int = 0  #: number of the newest event in here
    state: RunState | None = None
    reason: str = ""  #: why it is in this state, where there is something to say
    attempt: int = 0
    given_up: int = (
        0  #: attempts up to this one were: what they measured, found and met is not in here any more
    )
    whole: tuple[WholeLoop, ...] = ()  #: loops found not to be splittable, by this run or an earlier one
    spec: RunSpec | None = None
    placement: tuple[Mapping[str, Any], ...] = ()  #: per rank: rank, local_rank, worker, host
    changes: tuple[tuple[float, RunState], ...] = ()  #: every state with its time
    curves: Mapping[str, Mapping[int, Curve]] = field(default_factory=dict)  #: name → rank → curve
    usage: Mapping[int, tuple[UsageReading, ...]] = field(
        default_factory=dict
    )  #: per rank; thinned in long runs
    progress: Mapping[tuple[int, str], Progress] = field(default_factory=dict)  #: (rank, bar id)
    log: tuple[LogLine, ...] = ()  #: the newest LOG_LINES_KEPT
    remarks: tuple[str, ...] = ()
    errors: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  #: per rank; −1: no rank's
    artifacts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    proof: Proof | None = None  #: whether it trains what one process would, once that is known

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


def fold(events: Iterable[Event], view: RunView | None = None) -> RunView:
    """``view`` with ``events`` added; pure. Events that it has already (by ``seq``) change nothing.

    A payload that is not as documented is passed over: ranks run anybody's
    code, and one odd event must not hide the run.

    Raises:
        ValueError: no view was given and there are no events.
    """
    for event in events:
        if view is None:
            view = RunView(run_id=event.run_id)
        if event.run_id != view.run_id or (event.seq and event.seq <= view.seq):
            continue
        fold_one = _FOLDS.get(event.kind)
        if fold_one is not None and not _is_of_the_past(view, event):
            try:
                view = fold_one(view, event)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                pass
        view = replace(view, seq=max(view.seq, event.seq))
    if view is None:
        raise ValueError("no events")
    return view


_OF_AN_ATTEMPT = ("progress", "remark", "proof")  #: streams


def _is_of_the_past(view: RunView, event: Event) -> bool:
    """It is about an attempt that was given up; what was written then stays in the log."""
    is_past = 0 < event.attempt <= view.given_up and event.rank is not None
    return is_past and (event.kind is not EventKind.LOG or event.payload.get("stream") in _OF_AN_ATTEMPT)


def _given_up(view: RunView, attempt: int) -> RunView:
    """``view`` without what the ranks of ``attempt`` have told, but for the log and what they used."""
    said = {line.text for line in view.log if line.stream == "remark" and line.rank is None}
    return replace(
        view,
        given_up=attempt,
        curves={},
        progress={},
        errors={},
        artifacts={},
        proof=None,
        remarks=tuple(text for text in view.remarks if text in said),
    )


def _state(view: RunView, event: Event) -> RunView:
    payload = event.payload
    state = RunState(payload["state"])
    if not legal_move(view.state, state):
        return view
    new_attempt = event.attempt != view.attempt
    repeated = state is view.state
    if state is RunState.RETRYING:
        view = _given_up(view, event.attempt)
    spec = RunSpec.from_dict(payload["spec"]) if payload.get("spec") else None
    return replace(
        view,
        state=state,
        reason=str(payload.get("reason") or ""),
        attempt=event.attempt,
        spec=spec or view.spec,
        whole=whole_loops(payload.get("whole")) or (spec.whole if spec is not None else view.whole),
        placement=tuple(payload["placement"]) if payload.get("placement") else view.placement,
        changes=view.changes if repeated else (*view.changes, (event.time, state)),
        progress={} if new_attempt else view.progress,
        proof=None if new_attempt else view.proof,
    )


def _metrics(view: RunView, event: Event) -> RunView:
    rank = event.rank or 0
    curves = dict(view.curves)
    for name, column in event.payload["columns"].items():
        steps = np.asarray(column["step"], np.int64)
        values = np.asarray(column["value"], np.float64)
        if steps.ndim != 1 or steps.shape != values.shape:
            raise ValueError(f"steps and values of {name!r} differ in number")
        of_ranks = dict(curves.get(name, {}))
        of_ranks[rank] = of_ranks.get(rank, Curve()).extended(steps, values)
        curves[name] = of_ranks
    return replace(view, curves=curves)


def _usage(view: RunView, event: Event) -> RunView:
    rank = event.rank or 0
    reading = UsageReading(
        time=event.time,
        cpu_cores=float(event.payload.get("cpu_cores", 0.0)),
        memory_bytes=int(event.payload.get("memory_bytes", 0)),
    )
    readings = (*view.usage.get(rank, ()), reading)
    if len(readings) > USAGE_READINGS_KEPT:
        readings = _thinned(readings, USAGE_READINGS_KEPT // 2)
    return replace(view, usage={**view.usage, rank: readings})


def _thinned(readings: tuple[UsageReading, ...], count: int) -> tuple[UsageReading, ...]:
    """At most about ``count``: the oldest reading in each of equal spans of time, and the newest of all."""
    total = readings[-1].time - readings[0].time
    # Powers of two, so that the spans of the next thinning are made of whole ones of this one.
    span = 2.0 ** math.ceil(math.log2(max(total, 1e-9) / count))
    kept: dict[int, UsageReading] = {}
    for reading in readings[:-1]:
        kept.setdefault(math.floor(reading.time / span), reading)
    return (*kept.values(), readings[-1])


def _log(view: RunView, event: Event) -> RunView:
    payload = event.payload
    stream = str(payload.get("stream", "stdout"))
    if stream == "progress":
        key = (event.rank or 0, str(payload["bar"]))
        if payload.get("gone"):
            return replace(view, progress={k: bar for k, bar in view.progress.items() if k != key})
        bar = Progress(
            label=str(payload.get("label", "")),
            done=int(payload["done"]),
            total=payload.get("total"),
            note=str(payload.get("note", "")),
        )
        return replace(view, progress={**view.progress, key: bar})
    text = log_text(payload)
    if not text:
        return view
    line = LogLine(
        time=event.time,
        rank=event.rank,
        stream=stream,
        text=text[-LOG_LINE_CHARACTERS:],
        attempt=event.attempt,
    )
    view = replace(view, log=(*view.log, line)[-LOG_LINES_KEPT:])
    if stream == "remark" and text not in view.remarks:
        view = replace(view, remarks=(*view.remarks, text))
    if stream == "proof":
        view = replace(view, proof=Proof.from_payload(payload))
    return view


def log_text(payload: Mapping[str, Any]) -> str:
    """What the payload of a ``log`` event is in a log: a display is put in words, progress and clears are nothing."""
    stream = payload.get("stream", "stdout")
    if stream == "display":
        words = payload["data"].get("text/plain", "") if isinstance(payload.get("data"), Mapping) else ""
        return f"{words}\n" if isinstance(words, str) and words and not payload.get("update") else ""
    return "" if stream in ("progress", "clear") else str(payload.get("text", ""))


def _error(view: RunView, event: Event) -> RunView:
    rank = -1 if event.rank is None else event.rank
    return replace(view, errors={**view.errors, rank: event.payload})


def _artifact(view: RunView, event: Event) -> RunView:
    return replace(view, artifacts={**view.artifacts, str(event.payload["name"]): event.payload})


_FOLDS = {
    EventKind.STATE: _state,
    EventKind.METRICS: _metrics,
    EventKind.USAGE: _usage,
    EventKind.LOG: _log,
    EventKind.ERROR: _error,
    EventKind.ARTIFACT: _artifact,
}
