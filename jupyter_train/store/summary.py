"""What one line of ``%train runs`` shows: a row per run, kept up to date beside its events."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jupyter_train.record import Event, EventKind, RunState, goes_on, legal_move

METRICS_KEPT = 64
_RECORDED_BY_THEMSELVES = ("lr", "step_time_s", "samples_per_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class LastValue:
    """The newest value of one metric, of the lowest rank that has it."""

    step: int
    value: float  #: NaN and infinity are results
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run as a table shows it. Texts come from users: show them as text only."""

    run_id: str
    seq: int = 0  #: number of the newest event that the summary holds
    name: str = ""
    state: RunState | None = None
    reason: str = ""  #: why it is in this state, where there is something to say
    attempt: int = 0
    ranks: int = 0  #: asked for
    started: float | None = None  #: unix time of the first PENDING
    running_since: float | None = None  #: unix time of the newest attempt's RUNNING
    ended: float | None = None  #: unix time; None while it goes on
    metrics: Mapping[str, LastValue] = field(default_factory=dict)  #: at most METRICS_KEPT names
    session: str = ""  #: id of the kernel that submitted it
    notebook: str = ""
    cluster: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)  #: as submitted, without the environment

    @property
    def by_interest(self) -> list[tuple[str, LastValue]]:
        """The metrics, what the cell is about before what every run has."""
        return sorted(self.metrics.items(), key=lambda item: _of_every_run(item[0]))

    @property
    def loss(self) -> tuple[str, LastValue] | None:
        """The metric to show where there is room for one, with its name: the loss, as far as names tell."""
        if "loss" in self.metrics:
            return "loss", self.metrics["loss"]
        own = [name for name in self.metrics if not _of_every_run(name)]
        for name in [n for n in own if "loss" in n.lower()] or own:
            return name, self.metrics[name]
        return None


def _of_every_run(name: str) -> bool:
    return name.partition("/")[0].partition(" (")[0] in _RECORDED_BY_THEMSELVES


def summarize(events: Iterable[Event], summary: RunSummary) -> RunSummary:
    """``summary`` with ``events`` added; pure. What it has already changes nothing.

    Follows :func:`jupyter_train.record.fold` for the fields they share. A
    payload that is not as documented is passed over: ranks run anybody's code.
    """
    for event in events:
        if event.run_id != summary.run_id or event.seq <= summary.seq:
            continue
        try:
            if event.kind is EventKind.STATE:
                summary = _with_state(summary, event)
            elif event.kind is EventKind.METRICS and event.attempt >= summary.attempt:
                summary = _with_metrics(summary, event)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
            pass
        summary = replace(summary, seq=event.seq)
    return summary


def _with_state(summary: RunSummary, event: Event) -> RunSummary:
    payload = event.payload
    state = RunState(payload["state"])
    if not legal_move(summary.state, state):
        return summary
    is_anew = state is RunState.RETRYING and not goes_on(payload, event.run_id)
    summary = replace(
        summary,
        state=state,
        reason=str(payload.get("reason") or ""),
        attempt=event.attempt,
        metrics={} if is_anew else summary.metrics,
        started=event.time if summary.state is None else summary.started,
        running_since=event.time if state is RunState.RUNNING else summary.running_since,
        ended=event.time if state.is_terminal else None,
    )
    spec = payload.get("spec")
    if not spec:
        return summary
    return replace(
        summary,
        name=str(spec.get("name", "")),
        ranks=int(spec.get("ranks", 0)),
        session=str(spec.get("session", "")),
        notebook=str(spec.get("notebook", "")),
        cluster=str(spec.get("cluster", "")),
        spec=_in_short(without_environment(spec)),
    )


def _with_metrics(summary: RunSummary, event: Event) -> RunSummary:
    rank = event.rank or 0
    metrics = dict(summary.metrics)
    for name, column in event.payload["columns"].items():
        known = metrics.get(name)
        if known is None and len(metrics) >= METRICS_KEPT:
            continue
        if not len(column["step"]) or (known is not None and known.rank < rank):
            continue
        metrics[name] = LastValue(step=int(column["step"][-1]), value=float(column["value"][-1]), rank=rank)
    return replace(summary, metrics=metrics)


def _in_short(spec: Mapping[str, Any]) -> dict[str, Any]:
    """``spec`` without the source of what was captured: it is in the events, and a list of runs has no use for it."""
    known = spec.get("provenance")
    if not isinstance(known, Mapping):
        return dict(spec)
    kept = {name: value for name, value in known.items() if name not in ("definitions", "modules")}
    return {**spec, "provenance": kept}


def without_environment(spec: Mapping[str, Any]) -> dict[str, Any]:
    """``spec`` without the values of environment variables, which never enter a journal."""
    return {k: v for k, v in spec.items() if k != "environment"}


def to_json(value: Any) -> str:
    """JSON text of plain values, coded as in events: NaN is ``{"$f": "nan"}``, a key ``$f`` is ``$$f``."""
    return json.dumps(_finite(value), separators=(",", ":"))


def from_json(text: str) -> Any:
    """What :func:`to_json` was given (tuples as lists)."""
    return json.loads(text, object_hook=_decoded)


def _decoded(pairs: dict[str, Any]) -> Any:
    if pairs.keys() == {"$f"}:
        return float(pairs["$f"])
    return {k[1:] if k.startswith("$") else k: v for k, v in pairs.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$f": repr(float(value))}
    if isinstance(value, Mapping):
        return {"$" + str(k) if str(k).startswith("$") else str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
