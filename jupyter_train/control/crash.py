"""Where a rank was when native code brought it down, or when it was found to hang, from what the interpreter wrote."""

from __future__ import annotations

import re
from typing import Any

MAX_FRAMES = 16
_STACK = "Fatal Python error:"
_TAKEN = "Current thread "  #: where a rank that hangs was asked for its stacks
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.+)$', re.MULTILINE)


def crash_frames(text: str) -> list[dict[str, Any]]:
    """The frames from the cell inwards, outermost first, as an ``error`` event has them; empty where none are told.

    ``text`` is the end of what the rank wrote to stderr. The interpreter begins with the innermost frame.
    """
    _, found, stack = text.rpartition(_STACK)
    if not found and text.startswith(_TAKEN):
        found, stack = _TAKEN, text.partition("\n\n")[0]
    if not found:
        return []
    frames = [
        {"file": frame["file"], "line": int(frame["line"]), "name": frame["name"].strip(), "source": ""}
        for frame in _FRAME.finditer(stack.partition("\n\nExtension modules:")[0])
    ]
    frames.reverse()
    cells = [index for index, frame in enumerate(frames) if str(frame["file"]).startswith("<train ")]
    if not cells:
        return []
    frames = frames[cells[0] :]
    half = MAX_FRAMES // 2
    return frames if len(frames) <= MAX_FRAMES else frames[:half] + frames[-half:]
