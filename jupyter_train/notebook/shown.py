"""What a rank showed, as the notebook is to show it: text, displays, clears, in order. Pure.

``condensed`` leaves out what nobody could see any more, so that an animation
costs the page one picture per drawing and not one per frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jupyter_train.record import Event, EventKind, RunState, goes_on

_SHOWN_RANK = 0
_TEXT = ("stdout", "stderr")
_MANY_RETURNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Text on a stream, as it was written."""

    stream: str  #: stdout or stderr
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """A mime bundle."""

    data: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    display_id: str | None = None
    update: bool = False  #: in the place of all that has this id
    is_result: bool = False  #: the value of the cell's last line


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """All that was shown goes; with ``wait`` once something follows."""

    wait: bool


Shown = Text | Display | Clear


def given_up(events: Iterable[Event]) -> int:
    """The newest attempt that ``events`` say was given up, and nothing of it counts; 0: none."""
    retried = [e for e in events if e.kind is EventKind.STATE and e.payload.get("state") == RunState.RETRYING]
    # Where the next one goes on from a checkpoint, what was shown before it is not shown again.
    return max((e.attempt for e in retried if not goes_on(e.payload, e.run_id)), default=0)


def shown(events: Iterable[Event]) -> list[Shown]:
    """What ``events`` have for the cell: rank 0's. What is not as documented is passed over."""
    found: list[Shown] = []
    for event in events:
        if event.kind is not EventKind.LOG or event.rank != _SHOWN_RANK:
            continue
        payload = event.payload
        stream = payload.get("stream", "stdout")
        if stream in _TEXT:
            found.append(Text(stream=str(stream), text=str(payload.get("text", ""))))
        elif stream == "clear":
            found.append(Clear(wait=bool(payload.get("wait"))))
        elif stream == "display" and isinstance(data := payload.get("data"), Mapping):
            about, display_id = payload.get("metadata"), payload.get("display_id")
            found.append(
                Display(
                    data=data,
                    metadata=about if isinstance(about, Mapping) else {},
                    display_id=None if display_id is None else str(display_id),
                    update=bool(payload.get("update")),
                    is_result=bool(payload.get("result")),
                )
            )
    return found


def condensed(pieces: Iterable[Shown]) -> list[Shown]:
    """What has to be shown of ``pieces`` so that the same stands there in the end."""
    return _joined(_newest_updates(_since_clear(list(pieces))))


def settled(text: str) -> str:
    """``text`` less what it has overwritten itself by carriage returns, where there is much of that.

    Texts with few of them, and lines that move the cursor in other ways, stay as they were written.
    """
    if text.count("\r") < _MANY_RETURNS:
        return text
    return "\n".join(line if "\x1b" in line else _overwritten(line) for line in text.split("\n"))


def _overwritten(line: str) -> str:
    *before, last = line.split("\r")
    if not before:
        return line
    stands = ""
    for part in [*before, last]:
        stands = part + stands[len(part) :]
    # What stood there before this text is overwritten as before; whoever writes on begins where this one stopped.
    return f"\r{stands}" if last else f"\r{stands}\r"


def _since_clear(pieces: list[Shown]) -> list[Shown]:
    for at in range(len(pieces) - 1, -1, -1):
        piece = pieces[at]
        if isinstance(piece, Clear) and (not piece.wait or at + 1 < len(pieces)):
            # What changes displays of other cells is seen all the same.
            updates = [p for p in pieces[:at] if isinstance(p, Display) and p.update]
            return [*updates, *pieces[at:]]
    return pieces


def _newest_updates(pieces: list[Shown]) -> list[Shown]:
    seen: set[str | None] = set()
    kept: list[Shown] = []
    for piece in reversed(pieces):
        if isinstance(piece, Display) and piece.update:
            if piece.display_id in seen:
                continue
            seen.add(piece.display_id)
        kept.append(piece)
    return kept[::-1]


def _joined(pieces: list[Shown]) -> list[Shown]:
    joined: list[Shown] = []
    run: list[str] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, Text) and isinstance(last, Text) and last.stream == piece.stream:
            run.append(piece.text)
            continue
        if run and isinstance(last, Text):
            joined[-1] = replace(last, text="".join((last.text, *run)))
            run = []
        joined.append(piece)
    if run and isinstance(joined[-1], Text):
        joined[-1] = replace(joined[-1], text="".join((joined[-1].text, *run)))
    return joined
