"""The picture of a run: curves above, CPU and memory of its workers below, one time axis for both.

matplotlib's object interface with the Agg canvas: no pyplot, no global state,
safe on the live thread. Everything that the user's rcParams could change and
that matters is set here. Imported only when a picture is drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from jupyter_train.notebook.series import Band, StepClock, divergence, metric_band, usage_band
from jupyter_train.notebook.ticks import Ticks, step_ticks, time_ticks
from jupyter_train.record import Curve, RunView, Verdict
from jupyter_train.record.proof import power

MAX_BYTES = 20_000
WIDTH_PX = 680

# Readable on white and on near-black alike: contrast of at least 3 against both.
_INK = "#7f8794"
_GRID = "#7f879444"
_COLOURS = ("#2f81e0", "#d9730d", "#1f9d63", "#b45ad6", "#d9485f", "#8a7a2a")
_CPU, _MEMORY = "#1f9d63", "#b45ad6"

_PROVEN = {
    Verdict.SAME: ("same as one process", _INK),
    Verdict.DIFFERS: ("differs from one process", "#d9485f"),
}
_DPI = 100
_SLOW = ("step_time_s", "samples_per_s")  # shown as numbers, not as curves


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One axis of the picture."""

    lines: Mapping[str, Band]
    height: float  #: inches
    unit: str = ""
    colours: tuple[str, ...] = _COLOURS
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
    return _compressed(_figure(panels, view, clock, begin, end))


def _metric_panels(view: RunView, clock: StepClock) -> list[_Panel]:
    curves = {name: of_ranks for name, of_ranks in view.curves.items() if name not in _SLOW}
    rates = {name: c for name, c in curves.items() if name == "lr" or name.startswith("lr/")}
    bands = {name: _over_time(metric_band(c), clock) for name, c in curves.items() if name not in rates}
    bands = {name: b for name, b in bands.items() if len(b.x)}
    panels = []
    main, other = _by_size(bands)
    if main:
        panels.append(_Panel(lines=main, height=2.0, log=_wants_log(main.values())))
    if other:
        panels.append(_Panel(lines=other, height=0.8, colours=_COLOURS[len(main) :] + _COLOURS))
    moving = {name: _over_time(metric_band(c), clock) for name, c in rates.items()}
    moving = {name: b for name, b in moving.items() if len(b.x) and float(np.ptp(b.mean)) > 0}
    if moving and not other:  # a constant rate is a number, and there is room for one small axis
        first = dict(list(moving.items())[:3])
        panels.append(_Panel(lines=first, height=0.55, colours=_COLOURS[-1:] + _COLOURS, from_zero=True))
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
        if len(group) < len(_COLOURS):
            group[name] = line
    return main, other


def _wants_log(lines: Iterable[Band]) -> bool:
    values = np.concatenate([part[np.isfinite(part)] for line in lines for part in (line.low, line.high)])
    return bool(len(values)) and float(values.min()) > 1e-30 and float(values.max() / values.min()) > 100


def _figure(panels: list[_Panel], view: RunView, clock: StepClock, begin: float, end: float) -> Figure:
    top, bottom, steps, gap = 0.24, 0.3, 0.18, 0.3
    with_steps = bool(view.curves) and len(panels) > 1
    height = (
        sum(panel.height for panel in panels) + gap * (len(panels) - 1) + top + bottom + steps * with_steps
    )
    figure = Figure(figsize=(WIDTH_PX / _DPI, height), dpi=_DPI, facecolor="none", edgecolor="none")
    FigureCanvasAgg(figure)
    at = height - top
    for index, panel in enumerate(panels):
        at -= panel.height
        place = (0.085, at / height, 0.895, panel.height / height)
        axes = figure.add_axes(place, facecolor="none")
        _style(axes)
        _draw_panel(axes, panel, begin)
        _labels(figure, panel, (at + panel.height + 0.06) / height)
        axes.set_xlim(0.0, end - begin)
        if index == len(panels) - 1:
            _tick(axes, time_ticks(end - begin))
        elif index == 0 and with_steps:
            _tick(axes, step_ticks(clock, begin, end))
            at -= steps
        else:
            axes.set_xticks([])
        at -= gap
    _mark_proof(figure, view, panels[0], (height - top + 0.06) / height)
    _mark_divergence(figure, view, (height - top + 0.06) / height)
    return figure


def _draw_panel(axes: Axes, panel: _Panel, begin: float) -> None:
    for colour, line in zip(panel.colours, panel.lines.values(), strict=False):
        x = line.x - begin
        if len(x) > 1 and np.any(line.high > line.low):
            axes.fill_between(x, line.low, line.high, color=colour, alpha=0.22, linewidth=0)
        alone = len(x) < 3 or np.isfinite(line.mean).sum() < 3
        axes.plot(x, line.mean, color=colour, linewidth=1.4, marker="o" if alone else "", markersize=3)
    if panel.log:
        axes.set_yscale("log", nonpositive="mask")
        axes.minorticks_off()
        # matplotlib's own are formulas: to parse them takes a third of the time of a first picture.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
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
        axes.set_yticklabels([_number(tick) for tick in ticks])


def _tick(axes: Axes, ticks: Ticks) -> None:
    axes.set_xticks([at for at, _ in ticks])
    axes.set_xticklabels([text for _, text in ticks])


def _style(axes: Axes) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(_INK)
        spine.set_linewidth(0.6)
    axes.grid(visible=True, which="major", axis="y", color=_GRID, linewidth=0.5, linestyle="-")
    axes.tick_params(colors=_INK, labelcolor=_INK, labelsize=7, length=2, width=0.6, direction="out")
    axes.margins(x=0, y=0.08)
    axes.locator_params(axis="y", nbins=5)


def _labels(figure: Figure, panel: _Panel, y: float) -> None:
    at = 0.085
    for colour, (name, line) in zip(panel.colours, panel.lines.items(), strict=False):
        text = f"{_drawable(name)}  {_number(line.last)}{panel.unit}"
        _text(figure, (at, y), text, colour)
        at += 0.0092 * len(text) + 0.03
        if at > 0.9:
            break


def _mark_divergence(figure: Figure, view: RunView, y: float) -> None:
    found = divergence(view)
    if found is not None:
        name, step = found
        _text(figure, (0.98, y), f"{_drawable(name)} diverged at step {step}", "#d9485f", align="right")


def _mark_proof(figure: Figure, view: RunView, first: _Panel, y: float) -> None:
    """How it compares with one process, where the names of the curves leave room."""
    said = _PROVEN.get(view.proof.verdict) if view.proof is not None else None
    names = sum(len(name) + 12 for name in first.lines)
    if said is None or names > 60 or divergence(view) is not None:
        return
    text, colour = said
    size = "" if view.proof is None or view.proof.difference is None else f" ({power(view.proof.difference)})"
    _text(figure, (0.98, y), f"{text}{size}", colour, align="right")


def _text(figure: Figure, place: tuple[float, float], text: str, colour: str, *, align: Any = "left") -> None:
    # Names come from anybody: no dollar signs as mathematics, no TeX.
    figure.text(*place, text, color=colour, size=8, ha=align, va="bottom", parse_math=False, usetex=False)


def _drawable(text: str) -> str:
    """``text`` in letters that matplotlib's own font has, at most 24 of them."""
    kept = "".join(
        c if c.isprintable() and (ord(c) < 0x530 or 0x2010 <= ord(c) < 0x2300) else "□" for c in text
    )
    return kept if len(kept) <= 24 else kept[:23] + "…"


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "NaN" if math.isnan(value) else "∞"


def _compressed(figure: Figure) -> bytes:
    """The picture with a palette: a quarter of the bytes, and lines keep their soft edges."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba()), "RGBA")
    for colours in (64, 32, 16):
        data = _png(image, colours)
        if len(data) <= MAX_BYTES:
            return data
    smaller = image
    while len(data) > MAX_BYTES:
        smaller = smaller.resize((smaller.width * 3 // 4, smaller.height * 3 // 4))
        data = _png(smaller, 16)
    return data


def _png(image: Image.Image, colours: int) -> bytes:
    file = io.BytesIO()
    # FASTOCTREE is the method of Pillow that keeps transparency.
    image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, "PNG")
    return file.getvalue()


def summary_of_curves(curves: Mapping[str, Mapping[int, Curve]], *, most: int = 4) -> str:
    """For who cannot see the picture: first and last value of the first curves."""
    parts = []
    for name, of_ranks in curves.items():
        if name in _SLOW or name.partition("/")[0] == "lr":
            continue
        line = metric_band(of_ranks)
        if len(line.mean):
            parts.append(f"{name} from {_number(float(line.mean[0]))} to {_number(line.last)}")
    return "; ".join(parts[:most])
