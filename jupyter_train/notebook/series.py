"""From a view to what is drawn: lines with a band, few enough points for a picture, the time of a step. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jupyter_train.record import Curve, Event, EventKind, RunView
from jupyter_train.record.view import UsageReading

COLUMNS = 400
_ANCHORS_KEPT = 2048

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A line with what lies around it; all of shape ``(points,)``. NaN: a gap."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    last: float  #: mean over the ranks at the newest point itself, before thinning; NaN where there is none


def band(per_rank: Iterable[tuple[NDArray[np.number], Floats]], columns: int = COLUMNS) -> Band:
    """Mean and extremes over the ranks, and over neighbours where there are more points than ``columns``.

    A value that is not finite makes a gap of its column.
    """
    given = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in per_rank]
    x = np.concatenate([x for x, _ in given]) if given else np.empty(0)
    y = np.concatenate([y for _, y in given]) if given else np.empty(0)
    if not len(x):
        return Band(x=x, mean=y, low=y, high=y, last=math.nan)
    first, newest = x.min(), x.max()
    if any(len(places) > columns and np.all(places[1:] > places[:-1]) for places, _ in given):
        # More places than columns, without sorting a long history.
        index = _columns_of(x, first, newest, columns)
    else:
        places, index = np.unique(x, return_inverse=True)
        if len(places) > columns:
            index = _columns_of(x, first, newest, columns)
    last = float(y[x == newest].mean())
    size = int(index.max()) + 1
    count = np.bincount(index, minlength=size)
    finite = np.isfinite(y)
    gap = np.bincount(index, weights=~finite, minlength=size) > 0
    calm = np.where(finite, y, 0.0)
    least, most = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(least, index, np.where(finite, y, np.inf))
    np.maximum.at(most, index, np.where(finite, y, -np.inf))
    mean = np.bincount(index, weights=calm, minlength=size) / count
    for values in (mean, least, most):
        values[gap] = np.nan
    x = np.bincount(index, weights=x, minlength=size) / count
    return Band(x=x, mean=mean, low=least, high=most, last=last)


def _columns_of(x: Floats, first: float, newest: float, columns: int) -> NDArray[np.int64]:
    """In which of the columns that are not empty each of ``x`` lies."""
    index = np.minimum(((x - first) / (newest - first) * columns).astype(np.int64), columns - 1)
    used = np.bincount(index, minlength=columns) > 0
    return (np.cumsum(used) - 1)[index]


def metric_band(of_ranks: Mapping[int, Curve], columns: int = COLUMNS) -> Band:
    """A metric over the steps."""
    return band([(curve.steps, curve.values) for curve in of_ranks.values()], columns)


def usage_band(usage: Mapping[int, Sequence[UsageReading]], field: str, columns: int = COLUMNS) -> Band:
    """A reading (``cpu_cores`` or ``memory_bytes``) of all ranks over unix time, rounded to seconds."""
    given = []
    for readings in usage.values():
        some = readings[:: max(1, len(readings) // columns)]
        times = np.array([round(reading.time) for reading in some], np.float64)
        given.append((times, np.array([getattr(reading, field) for reading in some], np.float64)))
    return band(given, columns)


def diverged_at(of_ranks: Mapping[int, Curve]) -> int | None:
    """The step at which a metric stopped being finite for good, on any rank; None while it is finite."""
    steps = []
    for curve in of_ranks.values():
        if curve.last is None or math.isfinite(curve.last[1]):
            continue
        finite = np.flatnonzero(np.isfinite(curve.values))
        first = int(finite[-1]) + 1 if len(finite) else 0
        if first < len(curve.values):
            steps.append(int(curve.steps[first]))
    return min(steps) if steps else None


def divergence(view: RunView) -> tuple[str, int] | None:
    """The metric that was the first to stop being finite for good, and its step; None while all are finite."""
    found = [(step, name) for name, c in view.curves.items() if (step := diverged_at(c)) is not None]
    return (min(found)[1], min(found)[0]) if found else None


class StepClock:
    """At which time a step was done: between the known points, which come with each batch of metrics, by a line."""

    def __init__(self) -> None:
        self._steps: list[float] = []
        self._times: list[float] = []
        self._attempt = 0

    def add(self, events: Iterable[Event]) -> None:
        """Learns from batches of metrics and from the start of the attempt."""
        for event in events:
            if event.attempt != self._attempt:
                self._attempt, self._steps, self._times = event.attempt, [], []
            if event.kind is EventKind.STATE and event.payload.get("state") == "RUNNING":
                self._point(0.0, event.time)
            elif event.kind is EventKind.METRICS:
                last = [
                    column["step"][-1] for column in event.payload["columns"].values() if len(column["step"])
                ]
                if last:
                    self._point(float(max(last)), event.time)
        if len(self._steps) > _ANCHORS_KEPT:
            self._steps, self._times = self._steps[::-2][::-1], self._times[::-2][::-1]

    def _point(self, step: float, time: float) -> None:
        if not self._steps or (step > self._steps[-1] and time >= self._times[-1]):
            self._steps.append(step)
            self._times.append(time)

    def times(self, steps: Floats) -> Floats:
        """Unix times of ``steps``."""
        if not self._steps:
            return np.asarray(steps, np.float64)
        return np.interp(steps, self._steps, self._times)

    def step_at(self, time: float) -> float:
        """The step that was done at a time."""
        return float(np.interp(time, self._times, self._steps)) if self._steps else 0.0
