"""Where the time axis has ticks, and what stands at them. Pure."""

from __future__ import annotations

import math

import numpy as np

from jupyter_train.notebook.series import StepClock

Ticks = list[tuple[float, str]]  #: seconds since the beginning, and the text there

_PERIODS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800)
_MOST = 8


def time_ticks(span_s: float) -> Ticks:
    """Times in round numbers, for an axis from 0 to ``span_s``."""
    if span_s < 2:
        period = 10.0 ** math.floor(math.log10(max(span_s, 1e-6)))
        period = next(period * k for k in (0.2, 0.5, 1, 2) if span_s / (period * k) <= _MOST)
        return [(at, f"{at:.3g} s") for at in np.arange(0.0, span_s * (1 + 1e-9), period).tolist()]
    period = next((p for p in _PERIODS_S if span_s / p <= _MOST), _PERIODS_S[-1])
    while span_s / period > _MOST:
        period *= 2
    return [(at, _clock(at, period)) for at in np.arange(0.0, span_s * (1 + 1e-9), period).tolist()]


def _clock(seconds: float, period: float) -> str:
    if seconds == 0:
        return "0"
    if period < 60 and seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d}" if minutes else f"{hours} h"
    return f"{minutes}:{rest:02d}" if rest else f"{minutes} min"


def step_ticks(clock: StepClock, begin: float, end: float) -> Ticks:
    """Round numbers of steps at the times at which they were done; none closer than 3 % of the axis."""
    last = clock.step_at(end)
    if last < 1:
        return []
    raw = last / 6
    size = 10 ** math.floor(math.log10(raw)) if raw >= 1 else 1
    period = next(size * k for k in (1, 2, 5, 10) if size * k >= raw)
    steps = np.arange(0.0, last + 1e-9, period)
    times = clock.times(steps) - begin
    ticks: Ticks = []
    for step, at in zip(steps.tolist(), times.tolist(), strict=True):
        if not ticks or at - ticks[-1][0] > 0.03 * (end - begin):
            ticks.append((at, f"{step:g}"))
    at, text = ticks[-1]
    return [*ticks[:-1], (at, f"step {text}")]
