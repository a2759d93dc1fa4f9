"""Prints of rank 0 under the cell, at a rate that no front end chokes on.

The Jupyter server drops every message of a kernel that sends more than 1 MB/s
of text, the display's too; so the flood stays in the log.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import TextIO

from jupyter_train.record import Event, EventKind

RATE_BYTES_PER_S = 200_000
END_CHARACTERS = 2_000  #: shown of what was withheld last, once the run has ended
_SHOWN_RANK = 0


class Throttle:
    """How much of a text may be shown now: a bucket that fills at ``rate`` characters a second."""

    def __init__(self, rate: float = RATE_BYTES_PER_S) -> None:
        self._rate = rate
        self._room = rate
        self._at: float | None = None
        self.withheld = 0  #: characters not shown since the last that were

    def shown(self, text: str, now: float) -> str:
        """The part of ``text`` to show: whole lines while there is room, else nothing."""
        if self._at is not None:
            self._room = min(self._rate, self._room + (now - self._at) * self._rate)
        self._at = now
        if len(text) > self._room:
            cut = text.rfind("\n", 0, int(self._room)) + 1
            self.withheld += len(text) - cut
            self._room -= cut
            return text[:cut]
        self._room -= len(text)
        return text

    def take_withheld(self) -> int:
        """How many characters were withheld, counted anew from here."""
        withheld, self.withheld = self.withheld, 0
        return withheld


class RankOutput:
    """Writes what rank 0 prints to the cell's own stdout and stderr. Called from the live thread."""

    def __init__(
        self,
        run: str,
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._streams = {"stdout": stdout or sys.stdout, "stderr": stderr or sys.stderr}
        self._clock = clock
        self._throttle = Throttle()
        self._last: tuple[str, str] | None = None  #: the end of what was withheld, if nothing was shown since

    def events(self, events: Iterable[Event]) -> None:
        """Shows the prints among ``events``."""
        pieces: list[tuple[str, str]] = []
        for event in events:
            if event.kind is not EventKind.LOG or (event.rank or 0) != _SHOWN_RANK or event.rank is None:
                continue
            stream = str(event.payload.get("stream", "stdout"))
            if stream not in self._streams:
                continue
            text = str(event.payload.get("text", ""))
            if pieces and pieces[-1][0] == stream:
                pieces[-1] = (stream, pieces[-1][1] + text)
            else:
                pieces.append((stream, text))
        for stream, text in pieces:
            self._write(stream, text)

    def close(self) -> None:
        """The run has ended: says what was left out, if anything was, and shows the end of it."""
        last, self._last = self._last, None
        if last is not None:
            self._throttle.withheld -= len(last[1])
        self._say_withheld()
        if last is not None:
            self._streams[last[0]].write(last[1])
            self._streams[last[0]].flush()

    def _write(self, stream: str, text: str) -> None:
        shown = self._throttle.shown(text, self._clock())
        left = text[len(shown) :]
        end = left[-END_CHARACTERS:]
        self._last = (stream, end[end.find("\n", 0, -1) + 1 :]) if left else None
        if shown:
            if self._throttle.withheld > len(left):
                self._say_withheld()
            self._streams[stream].write(shown)
            self._streams[stream].flush()

    def _say_withheld(self) -> None:
        withheld = self._throttle.take_withheld()
        if withheld:
            self._streams["stderr"].write(
                f"[… {withheld:,} characters are only in the log: %train log {self._run}]\n"
            )
            self._streams["stderr"].flush()
