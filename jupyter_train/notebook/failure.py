"""How a run's failure looks in the notebook: the user's own error, in at most 15 lines.

The exception has the type that the cell raised, where that can be had here,
and renders itself (IPython asks ``_render_traceback_``): the user's frames with
the cell's own lines, which ranks say the same, and what to do next. Texts of a
run are freed of control characters before they reach a front end.
"""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_train import errors
from jupyter_train.notebook.advice import advice, out_of_memory
from jupyter_train.notebook.bundle import memory, plain
from jupyter_train.notebook.original import BY_CAUSE, original
from jupyter_train.notebook.requirement import install_advice
from jupyter_train.notebook.words import in_python, reference
from jupyter_train.record import RunState, RunView

MAX_LINES = 15
_FRAMES_SHOWN = 3
_MESSAGE_LINES = 3
_GROUPS_SHOWN = 2
_NOT_THE_USERS = ("site-packages", "dist-packages", "/lib/python3", "<frozen", "/jupyter_train/")


class Rendered:
    """Gives the same lines whenever IPython asks. A class, so that the exception still pickles."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def __call__(self) -> list[str]:
        return list(self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Which error stands for the run, and on which ranks."""

    payload: Mapping[str, Any]
    rank: int  #: −1: no rank's
    same: tuple[int, ...]  #: other ranks that say the same
    others: tuple[tuple[int, Mapping[str, Any]], ...]  #: one of each other kind


def quiet(error: BaseException, lines: list[str] | None = None) -> BaseException:
    """``error``, rendered by IPython as its message alone (or as ``lines``), without the frames of this package."""
    if hasattr(error, "_render_traceback_"):
        return error
    text = lines or [f"{type(error).__name__}: {error}"]
    error._render_traceback_ = Rendered(text)  # type: ignore[attr-defined]
    return error


def noted(error: BaseException) -> BaseException:
    """``error``, with what IPython shows of it as a note: so it is read in a plain Python's traceback too."""
    rendered = getattr(error, "_render_traceback_", None)
    if isinstance(rendered, Rendered):
        note = in_python("\n".join(rendered.lines))
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    return error


def failed_run(
    view: RunView,
    *,
    name: str,
    shipped: BaseException | None = None,
    namespace: Mapping[str, Any] | None = None,
    cell: str = "",
) -> BaseException:
    """The exception to raise for a run that ended FAILED or is LOST.

    ``shipped`` is the exception object of rank 0, where it came back; ``cell``
    is what the shell calls the cell (``Cell In[3]``), where it is known here.
    """
    failure = find_failure(view)
    if failure is None:
        kind, _, rest = view.reason.partition(": ")
        own = getattr(errors, kind, None)
        if not (isinstance(own, type) and issubclass(own, errors.TrainError)):
            own, rest = errors.RunFailed, view.reason
        what = "nothing is heard of it any more" if view.state is RunState.LOST else "it failed"
        made = own(f"run {name}: {rest or what}")
        if view.state is not RunState.LOST:
            return quiet(made)
        log = f"%train log {reference(name, view.run_id)}"
        advice_ = f"→ Its cluster has ended. Run the cell again: it looks for a cluster anew.  {log}  shows what was written."
        return quiet(made, [f"{type(made).__name__}: {made}", advice_])
    error = original(
        _kind(failure.payload), failure.payload, shipped if failure.rank == 0 else None, namespace or {}
    )
    return quiet(error, report(view, failure, name=name, cell=cell, kind=type(error).__name__))


def find_failure(view: RunView) -> Failure | None:
    """The error that stands for the run: a cell's exception before a lost rank, the lowest rank first."""
    own = {rank: payload for rank, payload in view.errors.items() if not payload.get("secondary")}
    own = own or dict(view.errors)
    if not own:
        return None
    timed_out = [rank for rank, payload in own.items() if _kind(payload) == "RunTimeout"]
    raised = [
        rank
        for rank, payload in own.items()
        if rank >= 0 and payload.get("cause", "exception") == "exception"
    ]
    rank = min(timed_out or raised or [rank for rank in own if rank >= 0] or list(own))
    first = _signature(own[rank])
    rest: dict[Any, tuple[int, Mapping[str, Any]]] = {}
    for other in sorted(own):
        if other != rank and other >= 0 and _signature(own[other]) != first:
            rest.setdefault(_signature(own[other]), (other, own[other]))
    return Failure(
        payload=own[rank],
        rank=rank,
        same=tuple(r for r in sorted(own) if r not in (rank, -1) and _signature(own[r]) == first),
        others=tuple(rest.values()),
    )


def report(view: RunView, failure: Failure, *, name: str, cell: str = "", kind: str = "") -> list[str]:
    """The lines that the front end shows: at most MAX_LINES."""
    payload, rank = failure.payload, failure.rank
    kind = kind or _kind(payload)
    world = view.spec.ranks if view.spec else len(view.placement) or rank + 1
    where = f"{_ranks((rank, *failure.same))} of {world}, " if rank >= 0 else ""
    head = [f"{kind} in {where}run {plain(name, 60)}"]
    frames = _frames(payload, view, cell)
    # RunFailed stands for a type that cannot be had here: the text has the original one.
    message = _message(payload, _kind(payload) if kind == errors.RunFailed.__name__ else kind)
    if out_of_memory(payload):
        message.append(f"out of memory{_in_use(view, rank)}")
        if held := plain(str(payload.get("memory") or ""), 300):
            message.append(f"held by the cell's names: {held}")
    elif payload.get("cause") == "signal" and _is_a_riddle(str(payload.get("message"))):
        # Linux takes the largest process when memory is short, and does not say so.
        message.append(f"perhaps out of memory{_in_use(view, rank)}")
    tail = _others(failure)
    tail.append(f"→ {_next_step(view, failure, name, kind)}")
    room = MAX_LINES - len(head) - len(message) - len(tail)
    while frames and sum(map(len, frames)) > room:
        # The outermost says how it began, the innermost what happened.
        del frames[len(frames) // 2 if len(frames) > 2 else 0]
    return [*head, *(line for frame in frames for line in frame), *message, *tail][:MAX_LINES]


def _is_a_riddle(message: str) -> bool:
    """Whether a rank was killed and nobody knows for what."""
    return "SIGKILL" in message and "for want of memory" not in message


def _next_step(view: RunView, failure: Failure, name: str, kind: str) -> str:
    missing = failure.payload.get("missing")
    if isinstance(missing, Mapping):
        said = {failure.rank, *failure.same}
        workers = [str(place.get("worker")) for place in view.placement if place.get("rank") in said]
        return install_advice(missing, workers)
    return advice(failure.payload, ref=reference(name, view.run_id), rank=failure.rank, kind=kind)


def _kind(payload: Mapping[str, Any]) -> str:
    return plain(str(payload.get("type") or BY_CAUSE.get(str(payload.get("cause")), "RunFailed")), 80)


def _signature(payload: Mapping[str, Any]) -> tuple[Any, ...]:
    frames = payload.get("frames") or [{}]
    inner = frames[-1]
    return (payload.get("type"), payload.get("message"), inner.get("file"), inner.get("line"))


def _message(payload: Mapping[str, Any], kind: str) -> list[str]:
    lines = [
        plain(line, 300) for line in str(payload.get("message", "")).strip().splitlines() if line.strip()
    ]
    shown = [f"{kind}: {lines[0]}" if lines else kind, *lines[1:_MESSAGE_LINES]]
    if len(lines) > _MESSAGE_LINES:
        shown[-1] += f" … ({len(lines) - _MESSAGE_LINES} more lines in the log)"
    return shown


def _in_use(view: RunView, rank: int) -> str:
    peaks = [
        f"rank {r} {memory(max(reading.memory_bytes for reading in readings))}"
        for r, readings in sorted(view.usage.items())
        if readings and (r == rank or rank < 0)
    ]
    return f": at most {', '.join(peaks[:4])} were in use" if peaks else ""


def _others(failure: Failure) -> list[str]:
    lines = []
    if failure.same:
        shown = f"shown is rank {failure.rank}; " if failure.rank >= 0 else ""
        lines.append(f"{shown}{_ranks(failure.same)}: the same")
    for rank, payload in failure.others[:_GROUPS_SHOWN]:
        frames = payload.get("frames") or []
        line = f" (line {frames[-1].get('line')})" if frames and _is_cell(str(frames[-1].get("file"))) else ""
        lines.append(f"rank {rank}: {_kind(payload)}: {plain(str(payload.get('message', '')), 120)}{line}")
    left = len(failure.others) - _GROUPS_SHOWN
    if left > 0:
        lines[-1] += f" … and {left} more"
    return lines


def _ranks(ranks: tuple[int, ...]) -> str:
    """``rank 1``, ``ranks 1–3, 5``."""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    named = ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in spans[:6])
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {named}{', …' if len(spans) > 6 else ''}"


def _is_cell(file: str) -> bool:
    return file.startswith("<train ") and file.endswith(">")


def _is_users(file: str) -> bool:
    return not any(part in file.replace("\\", "/") for part in _NOT_THE_USERS)


def _frames(payload: Mapping[str, Any], view: RunView, cell: str) -> list[list[str]]:
    """Location and source of each frame that is the user's, and of the library's innermost one."""
    frames = [f for f in payload.get("frames") or [] if isinstance(f, Mapping)]
    shown = [_frame(f, view, cell) for f in frames if _is_users(str(f.get("file", "")))]
    if len(shown) > _FRAMES_SHOWN:
        left = len(shown) - _FRAMES_SHOWN
        shown = [shown[0], [f"… {left} more of your frames"], *shown[-_FRAMES_SHOWN + 1 :]]
    if frames and shown and not _is_users(str(frames[-1].get("file", ""))):
        last = frames[-1]
        file = "/".join(str(last.get("file", "")).replace("\\", "/").split("/")[-3:])
        shown.append(
            [f"… in {plain(file, 80)}, line {last.get('line')}, in {plain(str(last.get('name')), 60)}"]
        )
    return shown


def _frame(frame: Mapping[str, Any], view: RunView, cell: str) -> list[str]:
    file, line = str(frame.get("file", "")), frame.get("line")
    source = str(frame.get("source") or "")
    if _is_cell(file):
        place = cell or "Cell"
        if not source and view.spec is not None and isinstance(line, int):
            lines = view.spec.source.splitlines()
            at = line - view.spec.first_line
            source = lines[at] if 0 <= at < len(lines) else ""
    else:
        place = _place(file)
        if not source and isinstance(line, int):
            # Other cells of this notebook are known to this process.
            source = linecache.getline(file, line)
    name = str(frame.get("name") or "")
    inside = f", in {plain(name, 60)}" if name and name != "<module>" else ""
    text = [f"{plain(place, 100)}, line {line}{inside}"]
    if source.strip():
        text.append(f"----> {line} {plain(source.rstrip(), 160)}")
    return text


def _place(file: str) -> str:
    """``Cell In[2]`` for another cell of this notebook, else the file."""
    from jupyter_train.notebook.session import current_session

    shell = current_session().shell
    named = shell.compile.format_code_name(file) if shell is not None else None
    return f"{named[0]} {named[1]}" if named else f"File {file}"
