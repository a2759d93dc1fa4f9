"""Runs and metrics as tables, logs as text: what the Python forms and ``%train runs`` show. Pure."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from jupyter_train.notebook.bundle import duration, number, plain
from jupyter_train.record import Event, EventKind, RunState
from jupyter_train.record.folding import log_text as words

if TYPE_CHECKING:
    from jupyter_train.store.summary import RunSummary

_HEAD = ("run", "name", "state", "ranks", "started", "took", "metrics")
_METRICS_SHOWN = 3


class RunTable(Sequence["RunSummary"]):
    """Runs, newest first: a table in the notebook, a sequence of summaries, and what a DataFrame can do (``to_frame()``)."""

    def __init__(
        self, runs: Iterable[RunSummary], *, problems: Iterable[object] = (), now: float | None = None
    ) -> None:
        self._runs = tuple(runs)
        self.problems = tuple(plain(str(problem), 400) for problem in problems)  #: what could not be read
        self._now = time.time() if now is None else now

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, at: Any) -> Any:
        """A run by its place, some of them by a slice; what else there may be in brackets means the DataFrame."""
        if isinstance(at, slice):
            return RunTable(self._runs[at], problems=self.problems, now=self._now)
        return self._runs[at] if hasattr(at, "__index__") else self.to_frame()[at]

    def __getattr__(self, name: str) -> Any:
        """What a DataFrame can do: ``jt.runs().sort_values("metrics.loss")``. Its columns too."""
        if name.startswith("_") or find_spec("pandas") is None:
            raise AttributeError(f"a table of runs has no {name!r}")
        return getattr(self.to_frame(), name)

    def __iter__(self) -> Iterator[RunSummary]:
        return iter(self._runs)

    def to_frame(self) -> Any:
        """A DataFrame with a row per run and a column per metric, parameter and tag. Needs pandas."""
        from jupyter_train.notebook.frames import runs_frame

        return runs_frame(self._runs, now=self._now)

    def __repr__(self) -> str:
        cells = [self._cells(run) for run in self._runs]
        return "\n".join([text_table(_HEAD, cells) if cells else self._none, *self.problems])

    @property
    def _none(self) -> str:
        return "no runs that can be read" if self.problems else "no runs yet"

    def _repr_html_(self) -> str:
        problems = "".join(f"<p>{html.escape(problem)}</p>" for problem in self.problems)
        if not self._runs:
            return self._none + problems
        head = "".join(f"<th>{title}</th>" for title in _HEAD)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in self._cells(run)) + "</tr>"
            for run in self._runs
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{problems}"

    def _cells(self, run: RunSummary) -> tuple[str, ...]:
        started = (
            "" if run.started is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started))
        )
        begin = run.running_since or run.started
        took = "" if begin is None else duration(max(0.0, (run.ended or self._now) - begin))
        metrics = [f"{plain(name, 30)} {number(last.value)}" for name, last in run.by_interest]
        return (
            run.run_id,
            plain(run.name, 40),
            _standing(run),
            str(run.ranks),
            started,
            took,
            ", ".join(metrics[:_METRICS_SHOWN]) + (", …" if len(metrics) > _METRICS_SHOWN else ""),
        )


def _standing(run: RunSummary) -> str:
    """Its state, and of who waits what for."""
    state = str(run.state or "")
    waits = run.state in (RunState.PENDING, RunState.RETRYING) and run.reason
    return f"{state}: {plain(run.reason, 120)}" if waits else state


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, for a fixed-width font."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def log_text(events: Iterable[Event], rank: int | None = None) -> str:
    """What was written, in order; with the rank in front of each line where several wrote, attempts apart."""
    logs = [event for event in events if event.kind is EventKind.LOG]
    several = rank is None and len({event.rank for event in logs}) > 1
    parts: list[str] = []
    attempt = 0
    for event in logs:
        text = words(event.payload)
        if not text or (rank is not None and event.rank != rank):
            continue
        if event.attempt > attempt:
            if attempt:
                parts.append(f"--- attempt {event.attempt} ---\n")
            attempt = event.attempt
        if rank is not None and event.payload.get("stream", "stdout") != "remark":
            parts.append(text)
            continue
        head = ("" if not several else "[run] " if event.rank is None else f"[{event.rank}] ") if text else ""
        parts.append("".join(head + line for line in _ended(text).splitlines(keepends=True)))
    return "".join(parts)


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else text + "\n"
