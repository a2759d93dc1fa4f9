"""``%train compare A B`` and ``jt.compare``: two runs side by side."""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jupyter_train.notebook.bundle import duration, number, plain, steps_done
from jupyter_train.notebook.comparing import (
    Best,
    Difference,
    Values,
    compared_values,
    differing_code,
    differing_settings,
)
from jupyter_train.notebook.history import position
from jupyter_train.notebook.table import text_table
from jupyter_train.record import RunView

_METRICS_SHOWN = 30
_LINES_SHOWN = 200
_RECORDED_BY_THEMSELVES = ("step_time_s", "samples_per_s")


class Comparison:
    """Two runs as they were when they were compared: curves over each other, newest and best values, what differs."""

    def __init__(
        self, views: tuple[RunView, RunView], names: tuple[str, str], *, now: float | None = None
    ) -> None:
        same = names[0] == names[1]
        labels = [
            f"{plain(name, 40)} ({view.run_id})" if same else plain(name, 40)
            for name, view in zip(names, views, strict=True)
        ]
        self.names = (labels[0], labels[1])  #: of the runs, told apart
        self._views = views
        self._now = time.time() if now is None else now

    @cached_property
    def values(self) -> list[Values]:
        """Newest and best value of each metric."""
        return compared_values(self._views)

    @cached_property
    def settings(self) -> list[Difference]:
        """Parameters and other settings that are not the same."""
        return differing_settings((self._views[0].spec, self._views[1].spec))

    @cached_property
    def code(self) -> str:
        """What differs in the cells, and in the functions and classes that both took along: a unified diff."""
        return "\n".join(differing_code((self._views[0].spec, self._views[1].spec), self.names))

    def to_frame(self) -> Any:
        """Every value over the steps: a DataFrame whose columns are metric and run. Needs pandas."""
        import pandas as pd

        from jupyter_train.notebook.frames import metrics_table

        tables = [metrics_table(view) for view in self._views]
        # Several values at one step are told apart by their order.
        numbered = [t.set_index(t.groupby(level=0).cumcount(), append=True) for t in tables]
        both = pd.concat(numbered, axis=1, keys=self.names).sort_index().droplevel(1)
        both.index.name = "step"
        return both.swaplevel(axis=1).sort_index(axis=1, level=0, sort_remaining=False)

    def __repr__(self) -> str:
        parts = [text_table(("", *self.names), [*self._facts(), *self._rows()])]
        if self.settings:
            rows = [(plain(one.name, 60), *map(_shown, one.values)) for one in self.settings]
            parts.append(text_table(("differs", *self.names), rows))
        parts.append("\n".join(self._diff()) or "the code is the same")
        return "\n\n".join(parts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        picture = self._picture()
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self._as_html(picture)}
        if picture is not None:
            bundle["image/png"] = picture
        return bundle

    def _picture(self) -> bytes | None:
        from jupyter_train.notebook.overlay import draw_over_each_other

        own = [one.name for one in self.values if one.name not in _RECORDED_BY_THEMSELVES]
        own.sort(key=lambda name: ("loss" not in name.lower(), name.partition("/")[0] == "lr"))
        return draw_over_each_other(self._views, self.names, own)

    def _as_html(self, picture: bytes | None) -> str:
        parts = [f"<div><b>{html.escape(' and '.join(self.names))}</b></div>"]
        if picture is not None:
            data = base64.b64encode(picture).decode()
            words = "; ".join(
                f"{one.name}: {' and '.join(_last_and_best(last, None) or 'none' for last in one.last)}"
                for one in self.values[:4]
            )
            alt = html.escape(plain(f"Curves of {self.names[0]} and {self.names[1]}: {words}"), quote=True)
            parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
        parts.append(_html_table(("", *self.names), [*self._facts(), *self._rows()]))
        if self.settings:
            rows = [(plain(one.name, 60), *map(_shown, one.values)) for one in self.settings]
            parts.append(_html_table(("differs", *self.names), rows))
        diff = self._diff()
        same = "<div>the code is the same</div>"
        parts.append(f"<pre>{html.escape(chr(10).join(diff))}</pre>" if diff else same)
        return "".join(parts)

    def _facts(self) -> list[tuple[str, str, str]]:
        def row(name: str, of: Sequence[str]) -> tuple[str, str, str]:
            return (name, of[0], of[1])

        took = [
            "" if begin is None else duration(max(0.0, (view.ended or self._now) - begin))
            for view in self._views
            for begin in [view.running_since or view.started]
        ]
        facts = [
            row("run", [view.run_id for view in self._views]),
            row("state", [str(view.state or "") for view in self._views]),
            row("took", took),
            row("steps", [str(steps_done(view)) for view in self._views]),
        ]
        kept = [position(view.checkpoints[-1]) if view.checkpoints else "" for view in self._views]
        return [*facts, *([row("newest checkpoint", kept)] if any(kept) else [])]

    def _rows(self) -> list[tuple[str, str, str]]:
        rows = []
        for one in self.values[:_METRICS_SHOWN]:
            shown = [_last_and_best(last, best) for last, best in zip(one.last, one.best, strict=True)]
            rows.append((plain(one.name, 40), shown[0], shown[1]))
        if len(self.values) > _METRICS_SHOWN:
            rows.append((f"{len(self.values) - _METRICS_SHOWN} more metrics", "", ""))
        return rows

    def _diff(self) -> list[str]:
        lines = self.code.splitlines()
        # What a line begins with counts: spaces are code.
        shown = [plain(f"|{line}|", 300)[1:].removesuffix("|") for line in lines[:_LINES_SHOWN]]
        return [
            *shown,
            *([f"… and {len(lines) - _LINES_SHOWN} more lines: .code"] if len(lines) > _LINES_SHOWN else []),
        ]


def _last_and_best(last: float | None, best: Best | None) -> str:
    if last is None:
        return ""
    return number(last) + (f" (best {number(best.value)} at step {best.step})" if best is not None else "")


def _shown(value: str) -> str:
    return plain(value, 80) or "–"


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
