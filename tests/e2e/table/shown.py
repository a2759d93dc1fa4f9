"""What a front end shows below a cell in the end, from the messages that the kernel sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_SHOWING = ("display_data", "execute_result")
_CELL_FRAME = re.compile(r"Cell In\[(\d+)\], line (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output: of a stream, a display, or an error."""

    kind: str  #: stdout, stderr, display
    text: str = ""  #: of a stream
    data: Any = None  #: of a display, by mime type
    display_id: str | None = None


def outputs(messages: list[tuple[str, dict[str, Any]]]) -> list[Output]:
    """The outputs that stand there when the cell has ended: updates, clears and carriage returns carried out."""
    shown: list[Output] = []
    clear_first = False
    for kind, content in messages:
        if kind == "clear_output":
            clear_first = bool(content.get("wait"))
            if not clear_first:
                shown.clear()
            continue
        display_id = (content.get("transient") or {}).get("display_id")
        if kind == "update_display_data":
            shown = [
                Output(kind="display", data=content["data"], display_id=display_id)
                if one.display_id == display_id
                else one
                for one in shown
            ]
            continue
        if clear_first and kind in (*_SHOWING, "stream"):
            shown.clear()
            clear_first = False
        if kind in _SHOWING:
            shown.append(Output(kind="display", data=content["data"], display_id=display_id))
        elif kind == "stream":
            text = content["text"]
            if shown and shown[-1].kind == content["name"]:
                text = shown.pop().text + text
            shown.append(Output(kind=content["name"], text=text))
    return [Output(kind=o.kind, text=overwritten(o.text), data=o.data) for o in shown]


def overwritten(text: str) -> str:
    """``text`` after its carriage returns: of each line what was written last."""
    lines = []
    for line in text.split("\n"):
        parts = line.split("\r")
        lines.append(next((part for part in reversed(parts) if part), ""))
    return "\n".join(lines)


def without_view(messages: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The messages of a ``%%train`` cell but for its live view, the first display."""
    ids = [(c.get("transient") or {}).get("display_id") for kind, c in messages if kind in _SHOWING]
    if not ids or ids[0] is None:
        return messages
    return [
        (kind, content)
        for kind, content in messages
        if (content.get("transient") or {}).get("display_id") != ids[0]
    ]


def frames_of_cells(text: str, execution_count: int) -> list[tuple[int, int]]:
    """Cell (0: the one that ran, −1: the one before it) and line of each frame that an error shows."""
    return [(int(cell) - execution_count, int(line)) for cell, line in _CELL_FRAME.findall(text)]
