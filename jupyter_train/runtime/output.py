"""``sys.stdout`` and ``sys.stderr`` of a rank: what Python writes becomes log events.

What C code and subprocesses write goes through file descriptors 1 and 2, which
the agent reads.
"""

from __future__ import annotations

import io
import os
import sys

from jupyter_train.runtime.recorder import Recorder


class RecordedStream(io.TextIOBase):
    """A text stream into a recorder. Unbuffered here; any thread may write."""

    def __init__(self, recorder: Recorder, stream: str, fd: int) -> None:
        self._recorder = recorder
        self._stream = stream
        self._fd = fd
        self._buffer: io.BufferedWriter | None = None

    @property
    def name(self) -> str:
        """As of the streams of a terminal."""
        return f"<{self._stream}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What happens to text that UTF-8 lacks."""
        return "backslashreplace"

    @property
    def buffer(self) -> io.BufferedWriter:
        """For those who write bytes; they go through the file descriptor."""
        if self._buffer is None:
            self._buffer = io.BufferedWriter(io.FileIO(self._fd, "wb", closefd=False), 1)
        return self._buffer

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor under it, for subprocesses."""
        return self._fd

    def write(self, text: str) -> int:
        """Record ``text``."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            self._recorder.log(self._stream, text)
        return len(text)

    def close(self) -> None:
        """Keep open: a cell that closes its output would lose the rest of it."""


def redirect(recorder: Recorder) -> None:
    """Send what this process prints to ``recorder``; its forks write to the descriptors."""
    sys.stdout = sys.__stdout__ = RecordedStream(recorder, "stdout", 1)  # type: ignore[assignment, misc]
    sys.stderr = sys.__stderr__ = RecordedStream(recorder, "stderr", 2)  # type: ignore[assignment, misc]
    os.register_at_fork(after_in_child=lambda: _in_fork(recorder))


def _in_fork(recorder: Recorder) -> None:
    recorder.disown()
    # By lines, as in a terminal: what several workers of a loader print at once would be mixed within them.
    sys.stdout = sys.__stdout__ = _by_lines(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _by_lines(2)  # type: ignore[misc]


def _by_lines(fd: int) -> io.TextIOWrapper:
    raw = io.BufferedWriter(io.FileIO(fd, "wb", closefd=False))
    return io.TextIOWrapper(raw, "utf-8", errors="backslashreplace", line_buffering=True)
