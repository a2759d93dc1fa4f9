"""How a rank's exception is told: the user's own frames, the original type, the whole text for the log."""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from jupyter_train.runtime.memory import memory_in_use, ran_out_of_memory

MAX_FRAMES = 16
MAX_TEXT = 20_000
MAX_MESSAGE = 4_000

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARIES = tuple(
    sorted(
        os.path.abspath(path) + os.sep
        for path in {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        if path
    )
)
#: What gloo and NCCL say in the ranks that outlive another one.
_PEER_GONE = re.compile(
    r"Connection (closed|reset) by (remote )?peer|Broken pipe|remote process exited|socket closed",
    re.IGNORECASE,
)


def is_users(file: str) -> bool:
    """Whether code in ``file`` was written by the user: neither a library's, nor Python's, nor ours."""
    if file.startswith("<"):
        return not file.startswith(("<frozen ", "<__array_function__", "<@", "<eval_with_key>"))
    path = os.path.abspath(file)
    return not path.startswith((_OWN, *_LIBRARIES)) and "site-packages" + os.sep not in path


def describe(
    error: BaseException, *, secondary: bool = False, users: Callable[[str], bool] = is_users
) -> dict[str, Any]:
    """The payload of an ``error`` event.

    Args:
        error: what the cell raised.
        secondary: it is only the consequence of another rank's end.
        users: tells whether a file is the user's.
    """
    trace = _below_us(error.__traceback__)
    kind = type(error)
    told = {
        "type": kind.__qualname__,
        "module": kind.__module__,
        "message": _message(error)[:MAX_MESSAGE],
        "frames": _frames(trace, users),
        "text": _text(error, trace),
        "secondary": secondary,
        "cause": "exit" if isinstance(error, SystemExit) else "exception",
    }
    if missing := _missing_module(error):
        told["missing"] = {"module": missing, "python": sys.executable}
    try:
        if ran_out_of_memory(error):
            told["memory"] = memory_in_use(trace)
    except (
        Exception
    ):  # memory is short, and what is asked for its size may be anybody's: the error comes first
        pass
    return told


def _missing_module(error: BaseException) -> str:
    """The module that this Python does not have, where that is why; empty else."""
    for cause in (error, error.__cause__):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name
    return ""


def comes_from_peer(error: BaseException) -> bool:
    """Whether a collective failed because another rank had ended."""
    return isinstance(error, (RuntimeError, OSError)) and bool(_PEER_GONE.search(_message(error)))


def _below_us(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the cell on, without our frames above it."""
    start = trace
    while start is not None and start.tb_frame.f_code.co_filename.startswith(_OWN):
        start = start.tb_next
    return start or trace


def _frames(trace: TracebackType | None, users: Callable[[str], bool]) -> list[dict[str, Any]]:
    frames = [
        {
            "file": frame.f_code.co_filename,
            "line": line,
            "name": frame.f_code.co_name,
            "source": linecache.getline(frame.f_code.co_filename, line).rstrip("\n"),
        }
        for frame, line in traceback.walk_tb(trace)
        if users(frame.f_code.co_filename)
    ]
    if len(frames) > MAX_FRAMES:  # a recursion: where it began and where it ended
        half = MAX_FRAMES // 2
        frames = frames[:half] + frames[-half:]
    return frames


def _message(error: BaseException) -> str:
    try:
        lines = [str(error)]
        if isinstance(error, BaseExceptionGroup):
            lines += [f"{type(one).__qualname__}: {_message(one)}" for one in error.exceptions]
        return "\n".join(lines)
    except BaseException:  # a user's __str__ may raise anything, SystemExit too
        return f"<{type(error).__name__} whose message cannot be shown>"


def _text(error: BaseException, trace: TracebackType | None) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:  # as above: formatting calls __str__ and __repr__ of the user's objects
        text = "".join(traceback.format_tb(trace)) + type(error).__qualname__
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]}\n[…]\n{text[-MAX_TEXT // 2 :]}"
