"""What a front end gets to show of a run: html, png and plain text of the same state.

Whatever a run wrote or was called is text to us: it is escaped for html and
freed of control characters. No widget state, no scripts, no style sheets.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jupyter_train.notebook import history
from jupyter_train.notebook.series import divergence
from jupyter_train.record import Curve, RunState, RunView, Verdict
from jupyter_train.record.view import Progress

_REMARKS_SHOWN = 6
_METRICS_SHOWN = 8
_BARS_SHOWN = 4
_STEPS_OF_SPEED = 50  #: at least, where there are so many
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))"
)  #: colours, links, cursor moves
_TIMED = ("step_time_s", "samples_per_s")

_SIGNS = {
    RunState.PENDING: "◌",
    RunState.STARTING: "◌",
    RunState.RETRYING: "◌",
    RunState.RUNNING: "●",
    RunState.STOPPING: "◍",
    RunState.SUCCEEDED: "✓",
    RunState.FAILED: "✗",
    RunState.CANCELLED: "■",
    RunState.LOST: "?",
}

_PROOF_SIGNS = {Verdict.SAME: "✓", Verdict.RANDOM: "≈", Verdict.DIFFERS: "✗", Verdict.UNCHECKED: "○"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawn chart and what it shows, in words."""

    png: bytes
    words: str


def plain(text: str, most: int = 400) -> str:
    """``text`` on one line, without colours and control characters, at most ``most`` characters."""
    line = "".join(c if c.isprintable() else " " for c in _ESCAPES.sub("", str(text))).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


def number(value: float) -> str:
    """A value as people read it: four digits, up to a million in full, NaN and infinity named."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 1e4 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def memory(size: float) -> str:
    """``1.4 GB``, ``320 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def steps_done(view: RunView) -> int:
    """Optimizer updates that the metrics tell of."""
    lasts = [c.last for of_ranks in view.curves.values() for c in of_ranks.values()]
    return max((last[0] for last in lasts if last), default=0)


def headline(view: RunView, *, now: float, connected: bool = True, note: str = "") -> str:
    """One line: state, for how long, how far."""
    state = view.state
    parts = [f"{_SIGNS[state]} {state}" if state else "◌ submitted"]
    if view.reason and state is not RunState.SUCCEEDED:
        parts[0] += f": {plain(view.reason, 200)}"
    parts += filter(None, [history.place_in_queue(view)])
    if view.spec is not None:
        parts.append(f"{view.spec.ranks} rank{'s' * (view.spec.ranks != 1)}")
    parts += filter(None, [history.which_attempt(view)])
    begin = view.running_since or view.started
    if begin is not None:
        parts.append(duration(max(0.0, (view.ended or now) - begin)))
    if steps_done(view):
        parts.append(f"step {steps_done(view)}")
    if not connected:
        parts.append("disconnected")
    if note:
        parts.append(note)
    return " · ".join(parts)


def rows(view: RunView) -> list[tuple[str, str]]:
    """The small table: what is measured, its newest value. Texts are plain, not yet escaped."""
    found = []
    for bar, progress in _bars(view):
        note = f" {plain(progress.note, 60)}" if progress.note else ""
        found.append((plain(progress.label or bar, 40), _bar(progress.done, progress.total) + note))
    own = [name for name in view.curves if name not in _TIMED]
    found += [(plain(name, 40), number(_newest(view.curves[name]))) for name in own[:_METRICS_SHOWN]]
    if len(own) > _METRICS_SHOWN:
        found.append(("more metrics", f"{len(own) - _METRICS_SHOWN}"))
    speed = []
    if "step_time_s" in view.curves:
        per_step = _recent_mean(view.curves["step_time_s"], lambda took: took)
        if per_step > 0:
            speed.append(f"{number(1 / per_step)} steps/s")
    if "samples_per_s" in view.curves:
        per_sample = _recent_mean(view.curves["samples_per_s"], lambda rate: 1 / rate if rate else math.nan)
        if per_sample > 0:
            speed.append(f"{number(1 / per_sample)} samples/s")
    if speed:
        found.append(("speed", ", ".join(speed)))
    if kept := history.checkpoints_kept(view):
        found.append(("checkpoints", kept))
    newest = [readings[-1] for readings in view.usage.values() if readings]
    if newest:
        cores = sum(reading.cpu_cores for reading in newest)
        found.append(("workers", f"{cores:.1f} cores, {memory(sum(r.memory_bytes for r in newest))}"))
    return found


def _newest(of_ranks: Mapping[int, Curve]) -> float:
    """Mean over the ranks of each one's newest value."""
    lasts = [curve.last for curve in of_ranks.values()]
    values = [last[1] for last in lasts if last]
    return sum(values) / len(values) if values else math.nan


def _recent_mean(of_ranks: Mapping[int, Curve], as_time: Callable[[float], float]) -> float:
    """Mean seconds of the lowest rank's newest steps: steady where the newest value jumps."""
    recent: list[float] = []
    for _, values in reversed(of_ranks[min(of_ranks)].chunks):
        recent += map(as_time, reversed(values.tolist()))
        if len(recent) >= _STEPS_OF_SPEED:
            break
    finite = [value for value in recent if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _bars(view: RunView) -> list[tuple[str, Progress]]:
    """The bars to show: of each loop the lowest rank's; where there are many, those that still go on, else the newest."""
    leads: dict[str, int] = {}
    for rank, bar in view.progress:
        leads[bar] = min(rank, leads.get(bar, rank))
    bars = [(bar, progress) for (rank, bar), progress in view.progress.items() if rank == leads[bar]]
    goes_on = [progress.total is None or progress.done < progress.total for _, progress in bars]
    by_interest = sorted(range(len(bars)), key=lambda at: goes_on[at])
    return [bars[at] for at in sorted(by_interest[-_BARS_SHOWN:])]


def _bar(done: int, total: int | None, width: int = 20) -> str:
    if not isinstance(total, int) or total <= 0:
        return str(done)
    part = min(1.0, max(0.0, done / total))
    filled = round(part * width)
    return f"{'█' * filled}{'░' * (width - filled)} {done}/{total}"


def make_bundle(
    view: RunView,
    *,
    name: str,
    now: float,
    picture: Picture | None = None,
    remarks: Sequence[str] = (),
    connected: bool = True,
    note: str = "",
) -> dict[str, Any]:
    """The mime bundle of ``view`` at unix time ``now``. Raw: image data is base64 text already."""
    title = f"{plain(name, 80)} ({view.run_id})"
    head = headline(view, now=now, connected=connected, note=plain(note))
    if when := history.as_of(view, now):
        head += f" · {when}"
    found = divergence(view)
    diverged = [f"{found[0]} diverged at step {found[1]}"] if found else []
    before = [*history.past_attempts(view), *filter(None, [history.where_it_began(view)])]
    texts = [*diverged, *before, *history.remarks(view), *remarks]
    said = [plain(text) for text in dict.fromkeys(texts)]
    table = rows(view)
    proven = proof_line(view)
    bundle: dict[str, Any] = {
        "text/plain": _as_text(title, head, table, said, proven),
        "text/html": _as_html(title, head, table, said, picture, proven),
    }
    if picture is not None:
        bundle["image/png"] = base64.b64encode(picture.png).decode()
    return bundle


def as_bundle(text: str) -> dict[str, Any]:
    """The mime bundle of a sentence."""
    return {"text/plain": plain(text), "text/html": f"<div>{html.escape(plain(text))}</div>"}


def proof_line(view: RunView) -> str:
    """How the run compares with one process; "" while that is not known."""
    return f"{_PROOF_SIGNS[view.proof.verdict]} {plain(view.proof.text)}" if view.proof is not None else ""


def _as_text(
    title: str, head: str, table: Iterable[tuple[str, str]], said: Sequence[str], proven: str
) -> str:
    values = ", ".join(f"{key} {value}" for key, value in table)
    lines = [f"run {title}", f"  {head}", *(f"  {line}" for line in (proven, values) if line)]
    return "\n".join([*lines, *(f"  • {text}" for text in _first(said))])


def _as_html(
    title: str,
    head: str,
    table: Sequence[tuple[str, str]],
    said: Sequence[str],
    picture: Picture | None,
    proven: str,
) -> str:
    parts = [f'<div><b>{html.escape(title)}</b> <span role="status">{html.escape(head)}</span></div>']
    if proven:
        parts.append(f"<div>{html.escape(proven)}</div>")
    if picture is not None:
        data = base64.b64encode(picture.png).decode()
        alt = html.escape(plain(picture.words), quote=True)
        parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
    if table:
        keys = "".join(f"<th>{html.escape(key)}</th>" for key, _ in table)
        values = "".join(f"<td>{html.escape(value)}</td>" for _, value in table)
        parts.append(f"<table><thead><tr>{keys}</tr></thead><tbody><tr>{values}</tr></tbody></table>")
    if said:
        parts.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in _first(said)) + "</ul>")
    return "".join(parts)


def _first(said: Sequence[str]) -> list[str]:
    shown = list(said[:_REMARKS_SHOWN])
    if len(said) > _REMARKS_SHOWN:
        shown.append(f"… and {len(said) - _REMARKS_SHOWN} more in the log")
    return shown
