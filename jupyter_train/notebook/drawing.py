"""What all our pictures have in common: size, colours that are readable in both themes, axes, small files.

matplotlib's object interface with the Agg canvas: no pyplot, no global state,
safe on the live thread. Everything that the user's rcParams could change and
that matters is set here. Imported only when a picture is drawn.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image

from jupyter_train.notebook.series import Band, Floats
from jupyter_train.notebook.ticks import Ticks

MAX_BYTES = 20_000
WIDTH_PX = 680
DPI = 100

# Readable on white and on near-black alike: contrast of at least 3 against both.
INK = "#7f8794"
_GRID = "#7f879444"
COLOURS = ("#2f81e0", "#d9730d", "#1f9d63", "#b45ad6", "#d9485f", "#8a7a2a")


def new_figure(height: float) -> Figure:
    """A transparent one, ``height`` inches high."""
    figure = Figure(figsize=(WIDTH_PX / DPI, height), dpi=DPI, facecolor="none", edgecolor="none")
    FigureCanvasAgg(figure)
    return figure


def draw_line(axes: Axes, x: Floats, line: Band, colour: str) -> None:
    """The mean over ``x``, with the band around it; few points are dots too."""
    if len(x) > 1 and np.any(line.high > line.low):
        axes.fill_between(x, line.low, line.high, color=colour, alpha=0.22, linewidth=0)
    alone = len(x) < 3 or np.isfinite(line.mean).sum() < 3
    axes.plot(x, line.mean, color=colour, linewidth=1.4, marker="o" if alone else "", markersize=3)


def wants_log(lines: Iterable[Band]) -> bool:
    """Whether the values differ by so much that a linear axis would hide most of them."""
    values = np.concatenate([part[np.isfinite(part)] for line in lines for part in (line.low, line.high)])
    return bool(len(values)) and float(values.min()) > 1e-30 and float(values.max() / values.min()) > 100


def make_log(axes: Axes) -> None:
    """A logarithmic axis."""
    axes.set_yscale("log", nonpositive="mask")
    axes.minorticks_off()
    # matplotlib's own are formulas: to parse them takes a third of the time of a first picture.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def put_ticks(axes: Axes, ticks: Ticks) -> None:
    """These ticks below the axis, and no others."""
    axes.set_xticks([at for at, _ in ticks])
    axes.set_xticklabels([text for _, text in ticks])


def style(axes: Axes) -> None:
    """Thin lines in the ink of both themes."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(INK)
        spine.set_linewidth(0.6)
    axes.grid(visible=True, which="major", axis="y", color=_GRID, linewidth=0.5, linestyle="-")
    axes.tick_params(colors=INK, labelcolor=INK, labelsize=7, length=2, width=0.6, direction="out")
    axes.margins(x=0, y=0.08)
    axes.locator_params(axis="y", nbins=5)


def write(figure: Figure, place: tuple[float, float], text: str, colour: str, *, align: Any = "left") -> None:
    """``text`` at ``place`` of the figure, 0..1."""
    # Names come from anybody: no dollar signs as mathematics, no TeX.
    figure.text(*place, text, color=colour, size=8, ha=align, va="bottom", parse_math=False, usetex=False)


def drawable(text: str) -> str:
    """``text`` in letters that matplotlib's own font has, at most 24 of them."""
    kept = "".join(
        c if c.isprintable() and (ord(c) < 0x530 or 0x2010 <= ord(c) < 0x2300) else "□" for c in text
    )
    return kept if len(kept) <= 24 else kept[:23] + "…"


def short(value: float) -> str:
    """A number for an axis: three digits."""
    return f"{value:.3g}" if math.isfinite(value) else "NaN" if math.isnan(value) else "∞"


def as_png(figure: Figure) -> bytes:
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
