"""The picture of two runs: their curves over each other, by step. Imported only when it is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from jupyter_train.notebook.drawing import (
    COLOURS,
    INK,
    as_png,
    draw_line,
    drawable,
    make_log,
    new_figure,
    short,
    style,
    wants_log,
    write,
)
from jupyter_train.notebook.series import Band, metric_band
from jupyter_train.record import RunView

PANELS = 5
_COLUMNS = 300


def draw_over_each_other(
    views: Sequence[RunView], names: Sequence[str], metrics: Sequence[str]
) -> bytes | None:
    """A png of at most 20 KB with a transparent background; None where no run has any of ``metrics``.

    Args:
        views: the runs.
        names: what they are called, in their order.
        metrics: each gets an axis, as far as there is room, the first a higher one.
    """
    panels: list[tuple[str, list[Band | None]]] = []
    for metric in metrics:
        lines = [
            metric_band(view.curves[metric], _COLUMNS) if view.curves.get(metric) else None for view in views
        ]
        lines = [line if line is not None and len(line.x) else None for line in lines]
        if any(lines) and len(panels) < PANELS:
            panels.append((metric, lines))
    if not panels:
        return None
    heights = [2.0, *[1.0] * (len(panels) - 1)]
    top, gap, bottom = 0.5, 0.34, 0.34
    height = top + sum(heights) + gap * (len(panels) - 1) + bottom
    figure = new_figure(height)
    at = 0.085
    for colour, name in zip(COLOURS, names, strict=False):
        write(figure, (at, (height - 0.2) / height), f"— {drawable(name)}", colour)
        at += 0.0092 * (len(drawable(name)) + 2) + 0.04
    newest = max(float(line.x[-1]) for _, lines in panels for line in lines if line is not None)
    y = height - top
    for index, ((metric, lines), tall) in enumerate(zip(panels, heights, strict=True)):
        y -= tall
        axes = figure.add_axes((0.085, y / height, 0.895, tall / height), facecolor="none")
        style(axes)
        for colour, line in zip(COLOURS, lines, strict=False):
            if line is not None:
                draw_line(axes, line.x, line, colour)
        if wants_log([line for line in lines if line is not None]):
            make_log(axes)
        axes.set_xlim(0.0, max(newest, 1.0))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if index < len(panels) - 1:
            axes.set_xticklabels([])
        values = "  ".join("–" if line is None else short(line.last) for line in lines)
        write(figure, (0.085, (y + tall + 0.06) / height), f"{drawable(metric)}  {values}", INK)
        y -= gap
    write(figure, (0.98, 0.02), "step", INK, align="right")
    return as_png(figure)
