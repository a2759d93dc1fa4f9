"""From the events of a run to its view: one pure function, shared by magic, view, server and tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jupyter_train.record.checkpoint import Gathered, ResumePoint, checkpoint_part, goes_on, resume_point
from jupyter_train.record.curve import Measured, cut_back, points_of
from jupyter_train.record.events import Event, EventKind
from jupyter_train.record.proof import Proof, Verdict
from jupyter_train.record.spec import RunSpec, whole_loops
from jupyter_train.record.states import RunState, legal_move
from jupyter_train.record.view import LogLine, PastAttempt, Progress, RunView, UsageReading

LOG_LINES_KEPT = 2000
LOG_LINE_CHARACTERS = 8192  #: of each, the last ones
USAGE_READINGS_KEPT = 4096


def fold(events: Iterable[Event], view: RunView | None = None) -> RunView:
    """``view`` with ``events`` added; pure. Events that it has already (by ``seq``) change nothing.

    A payload that is not as documented is passed over: ranks run anybody's
    code, and one odd event must not hide the run.

    Raises:
        ValueError: no view was given and there are no events.
    """
    measured = Measured()  # a long history is put into the curves at once, not event by event
    used: dict[int, list[UsageReading]] = {}  # so are its readings, by rank
    seq = view.seq if view is not None else 0
    for event in events:
        if view is None:
            view = RunView(run_id=event.run_id)
        if event.run_id != view.run_id or (event.seq and event.seq <= seq):
            continue
        seq = max(seq, event.seq)
        if _is_of_the_past(view, event):
            continue
        try:
            if event.kind is EventKind.METRICS:
                measured.add(event.rank or 0, event.payload["columns"])
                continue
            if event.kind is EventKind.USAGE:
                _add_usage(used, view, event)
                continue
            if event.kind in _READ_CURVES:
                view = replace(view, curves=measured.put_into(view.curves))
            view = _FOLDS[event.kind](view, event)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            pass
    if view is None:
        raise ValueError("no events")
    if seq == view.seq and not measured and not used:
        return view
    usage = {**view.usage, **{rank: tuple(readings) for rank, readings in used.items()}}
    return replace(view, curves=measured.put_into(view.curves), usage=usage, seq=seq)


_OF_AN_ATTEMPT = ("progress", "remark", "proof")  #: streams


def _is_of_the_past(view: RunView, event: Event) -> bool:
    """It is about an attempt that was given up; what was written then stays in the log."""
    is_past = 0 < event.attempt <= view.given_up and event.rank is not None
    return is_past and (event.kind is not EventKind.LOG or event.payload.get("stream") in _OF_AN_ATTEMPT)


def _started_over(view: RunView) -> RunView:
    """``view`` without what the ranks of its attempts have told, but for the log and what they used."""
    said = {line.text for line in view.log if line.stream == "remark" and line.rank is None}
    return replace(
        view,
        curves={},
        proof=None,
        remarks=tuple(text for text in view.remarks if text in said),
        gathered=Gathered(),
        marks={},
    )


def _resumed(view: RunView, point: ResumePoint) -> RunView:
    """``view`` as it was at the checkpoint; what is no measurement stays."""
    gathered = view.gathered.back_to(point.attempt, point.number)
    return replace(
        view,
        curves=cut_back(view.curves, view.marks.get((point.attempt, point.number), {})),
        gathered=gathered,
        marks={key: view.marks[key] for key in gathered.parts if key in view.marks},
    )


def _given_up(view: RunView, event: Event) -> RunView:
    """``view`` once its attempt was given up: as before it, or as at the checkpoint where the next goes on."""
    point = resume_point(event.payload.get("resume"))
    if point is not None and goes_on(event.payload, view.run_id):
        view = _resumed(view, point)
    else:
        view = _started_over(view)
    past = PastAttempt(
        attempt=event.attempt, time=event.time, reason=str(event.payload.get("reason") or ""), resume=point
    )
    return replace(
        view, given_up=event.attempt, past=(*view.past, past), progress={}, errors={}, artifacts={}
    )


def _state(view: RunView, event: Event) -> RunView:
    payload = event.payload
    state = RunState(payload["state"])
    if not legal_move(view.state, state):
        return view
    repeated = state is view.state
    if state is RunState.RETRYING and event.attempt > view.given_up:
        view = _given_up(view, event)
    spec = RunSpec.from_dict(payload["spec"]) if payload.get("spec") else None
    return replace(
        view,
        state=state,
        reason=str(payload.get("reason") or ""),
        queue_place=int(payload.get("queue_place") or 0),
        attempt=event.attempt,
        spec=spec or view.spec,
        whole=whole_loops(payload.get("whole")) or (spec.whole if spec is not None else view.whole),
        placement=tuple(payload["placement"]) if payload.get("placement") else view.placement,
        changes=view.changes if repeated else (*view.changes, (event.time, state)),
        progress={} if event.attempt != view.attempt else view.progress,
    )


def _add_usage(used: dict[int, list[UsageReading]], view: RunView, event: Event) -> None:
    """Put a reading behind those of its rank, which are ``view``'s where ``used`` has none yet."""
    rank = event.rank or 0
    reading = UsageReading(
        time=event.time,
        cpu_cores=float(event.payload.get("cpu_cores", 0.0)),
        memory_bytes=int(event.payload.get("memory_bytes", 0)),
    )
    if rank not in used:
        used[rank] = list(view.usage.get(rank, ()))
    readings = used[rank]
    readings.append(reading)
    if len(readings) > USAGE_READINGS_KEPT:
        used[rank] = list(_thinned(readings, USAGE_READINGS_KEPT // 2))


def _thinned(readings: Sequence[UsageReading], count: int) -> tuple[UsageReading, ...]:
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
    if stream == "machine":
        return replace(view, machines={**view.machines, event.rank or 0: payload})
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
        proof = Proof.from_payload(payload)
        # An attempt that goes on has no first steps to compare: what was proven before stands.
        if view.proof is None or not view.past or proof.verdict is not Verdict.UNCHECKED:
            view = replace(view, proof=proof)
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


def _checkpoint(view: RunView, event: Event) -> RunView:
    rank = event.rank
    if rank is None:
        return view
    if event.payload.get("begun") is True:
        return replace(view, marks=_marked(view, (event.attempt, int(event.payload["number"])), rank))
    part = checkpoint_part(event.payload)
    key = part.attempt, part.number
    gathered = view.gathered.with_part(
        part,
        attempt=event.attempt,
        rank=rank,
        ranks=view.spec.ranks if view.spec is not None else len(view.placement),
        time=event.time,
    )
    marks = view.marks if part.dropped else _marked(view, key, rank)
    # A rank writes one after the other: what it began before this and has not told, it has left out.
    left_out = [
        known
        for known, ranks in marks.items()
        if known not in gathered.parts and (known == key or (rank in ranks and known < key))
    ]
    return replace(
        view, gathered=gathered, marks={known: marks[known] for known in marks if known not in left_out}
    )


def _marked(
    view: RunView, key: tuple[int, int], rank: int
) -> Mapping[tuple[int, int], Mapping[int, Mapping[str, int]]]:
    """The marks with that of ``rank`` as of now, unless it has one: the disk is slower than the loop."""
    known = view.marks.get(key, {})
    if rank in known:
        return view.marks
    return {**view.marks, key: {**known, rank: points_of(view.curves, rank)}}


def _artifact(view: RunView, event: Event) -> RunView:
    return replace(view, artifacts={**view.artifacts, str(event.payload["name"]): event.payload})


_READ_CURVES = frozenset({EventKind.STATE, EventKind.CHECKPOINT})
_FOLDS = {
    EventKind.STATE: _state,
    EventKind.LOG: _log,
    EventKind.CHECKPOINT: _checkpoint,
    EventKind.ERROR: _error,
    EventKind.ARTIFACT: _artifact,
}
