"""The picture of a run: curves above, CPU and memory of its workers below, one time axis for both.

Imported only when a picture is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jupyter_train.notebook.drawing import (
    COLOURS,
    INK,
    MAX_BYTES,
    WIDTH_PX,
    as_png,
    draw_line,
    drawable,
    make_log,
    new_figure,
    put_ticks,
    short,
    style,
    wants_log,
    write,
)
from jupyter_train.notebook.series import Band, StepClock, divergence, metric_band, usage_band
from jupyter_train.notebook.ticks import step_ticks, time_ticks
from jupyter_train.record import Curve, RunView, Verdict
from jupyter_train.record.proof import power

__all__ = ["MAX_BYTES", "WIDTH_PX", "draw", "summary_of_curves"]

_CPU, _MEMORY = "#1f9d63", "#b45ad6"

_PROVEN = {
    Verdict.SAME: ("same as one process", INK),
    Verdict.DIFFERS: ("differs from one process", "#d9485f"),
}
_SLOW = ("step_time_s", "samples_per_s")  # shown as numbers, not as curves


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One axis of the picture."""

    lines: Mapping[str, Band]
    height: float  #: inches
    unit: str = ""
    colours: tuple[str, ...] = COLOURS
    log: bool = False
    from_zero: bool = False


def draw(view: RunView, clock: StepClock, *, now: float) -> bytes | None:
    """A png of at most 20 KB with a transparent background; None where there is nothing to draw yet.

    ``now`` is unix time: until when the time axis goes while the run goes on.
    """
    panels = [*_metric_panels(view, clock), *_usage_panels(view)]
    if not panels:
        return None
    begin = view.running_since or view.started or min(band.x[0] for p in panels for band in p.lines.values())
    newest = max(float(band.x[-1]) for p in panels for band in p.lines.values())
    end = max(view.ended or max(now, newest), begin + 1e-3)
    return as_png(_figure(panels, view, clock, begin, end))


def _metric_panels(view: RunView, clock: StepClock) -> list[_Panel]:
    curves = {name: of_ranks for name, of_ranks in view.curves.items() if name not in _SLOW}
    rates = {name: c for name, c in curves.items() if name == "lr" or name.startswith("lr/")}
    bands = {name: _over_time(metric_band(c), clock) for name, c in curves.items() if name not in rates}
    bands = {name: b for name, b in bands.items() if len(b.x)}
    panels = []
    main, other = _by_size(bands)
    if main:
        panels.append(_Panel(lines=main, height=2.0, log=wants_log(main.values())))
    if other:
        panels.append(_Panel(lines=other, height=0.8, colours=COLOURS[len(main) :] + COLOURS))
    moving = {name: _over_time(metric_band(c), clock) for name, c in rates.items()}
    moving = {name: b for name, b in moving.items() if len(b.x) and float(np.ptp(b.mean)) > 0}
    if moving and not other:  # a constant rate is a number, and there is room for one small axis
        first = dict(list(moving.items())[:3])
        panels.append(_Panel(lines=first, height=0.55, colours=COLOURS[-1:] + COLOURS, from_zero=True))
    return panels


def _usage_panels(view: RunView) -> list[_Panel]:
    cpu = usage_band(view.usage, "cpu_cores")
    memory = usage_band(view.usage, "memory_bytes")
    if len(cpu.x) < 2:  # one reading is a number, which the table has
        return []
    ranks = "per rank" if len(view.usage) > 1 else ""
    gigabytes = Band(
        x=memory.x,
        mean=memory.mean / 1e9,
        low=memory.low / 1e9,
        high=memory.high / 1e9,
        last=memory.last / 1e9,
    )
    return [
        _Panel(lines={f"CPU cores {ranks}".strip(): cpu}, height=0.5, colours=(_CPU,), from_zero=True),
        _Panel(
            lines={f"memory {ranks}".strip(): gigabytes},
            height=0.5,
            unit=" GB",
            colours=(_MEMORY,),
            from_zero=True,
        ),
    ]


def _over_time(by_step: Band, clock: StepClock) -> Band:
    return replace(by_step, x=clock.times(by_step.x))


def _by_size(bands: Mapping[str, Band]) -> tuple[dict[str, Band], dict[str, Band]]:
    """Curves that share the first one's axis, and those that would be flat lines there."""
    main: dict[str, Band] = {}
    other: dict[str, Band] = {}
    size = 0.0
    for name, line in sorted(bands.items(), key=lambda item: "loss" not in item[0].lower()):
        finite = np.abs(line.mean[np.isfinite(line.mean)])
        typical = float(np.median(finite)) if len(finite) else 0.0
        size = size or typical
        fits = not size or not typical or 0.02 <= typical / size <= 50
        group = main if fits else other
        if len(group) < len(COLOURS):
            group[name] = line
    return main, other


def _figure(panels: list[_Panel], view: RunView, clock: StepClock, begin: float, end: float) -> Figure:
    top, bottom, steps, gap = 0.24, 0.3, 0.18, 0.3
    with_steps = bool(view.curves) and len(panels) > 1
    height = (
        sum(panel.height for panel in panels) + gap * (len(panels) - 1) + top + bottom + steps * with_steps
    )
    figure = new_figure(height)
    at = height - top
    for index, panel in enumerate(panels):
        at -= panel.height
        place = (0.085, at / height, 0.895, panel.height / height)
        axes = figure.add_axes(place, facecolor="none")
        style(axes)
        _draw_panel(axes, panel, begin)
        _labels(figure, panel, (at + panel.height + 0.06) / height)
        axes.set_xlim(0.0, end - begin)
        if index == len(panels) - 1:
            put_ticks(axes, time_ticks(end - begin))
        elif index == 0 and with_steps:
            put_ticks(axes, step_ticks(clock, begin, end))
            at -= steps
        else:
            axes.set_xticks([])
        at -= gap
    _mark_proof(figure, view, panels[0], (height - top + 0.06) / height)
    _mark_divergence(figure, view, (height - top + 0.06) / height)
    return figure


def _draw_panel(axes: Axes, panel: _Panel, begin: float) -> None:
    for colour, line in zip(panel.colours, panel.lines.values(), strict=False):
        draw_line(axes, line.x - begin, line, colour)
    if panel.log:
        make_log(axes)
    elif panel.height < 1:
        low, high = axes.get_ylim()
        if panel.from_zero:
            low, high = (
                0.0,
                1.1 * max([float(np.nanmax(b.high, initial=0.0)) for b in panel.lines.values()]) or 1.0,
            )
        ticks = [t for t in MaxNLocator(2).tick_values(low, high) if low <= t <= high]
        axes.set_ylim(low, high)
        axes.set_yticks(ticks)
        axes.set_yticklabels([short(tick) for tick in ticks])


def _labels(figure: Figure, panel: _Panel, y: float) -> None:
    at = 0.085
    for colour, (name, line) in zip(panel.colours, panel.lines.items(), strict=False):
        text = f"{drawable(name)}  {short(line.last)}{panel.unit}"
        write(figure, (at, y), text, colour)
        at += 0.0092 * len(text) + 0.03
        if at > 0.9:
            break


def _mark_divergence(figure: Figure, view: RunView, y: float) -> None:
    found = divergence(view)
    if found is not None:
        name, step = found
        write(figure, (0.98, y), f"{drawable(name)} diverged at step {step}", "#d9485f", align="right")


def _mark_proof(figure: Figure, view: RunView, first: _Panel, y: float) -> None:
    """How it compares with one process, where the names of the curves leave room."""
    said = _PROVEN.get(view.proof.verdict) if view.proof is not None else None
    names = sum(len(name) + 12 for name in first.lines)
    if said is None or names > 60 or divergence(view) is not None:
        return
    text, colour = said
    size = "" if view.proof is None or view.proof.difference is None else f" ({power(view.proof.difference)})"
    write(figure, (0.98, y), f"{text}{size}", colour, align="right")


def summary_of_curves(curves: Mapping[str, Mapping[int, Curve]], *, most: int = 4) -> str:
    """For who cannot see the picture: first and last value of the first curves."""
    parts = []
    for name, of_ranks in curves.items():
        if name in _SLOW or name.partition("/")[0] == "lr":
            continue
        line = metric_band(of_ranks)
        if len(line.mean):
            parts.append(f"{name} from {short(float(line.mean[0]))} to {short(line.last)}")
    return "; ".join(parts[:most])
