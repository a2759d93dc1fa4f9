"""Text that ranks write, gathered into few events: whole lines where they come soon, bounded always."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter

MAX_WAITING = 256 * 1024  #: characters between two takes; the rest is counted and left out
PARTIAL_LINE_S = 0.3  #: a line without an end is held back this long


class TextBuffer:
    """Takes pieces from any thread; gives runs of text per stream to one taker, in order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pieces: deque[tuple[str, str]] = deque()
        self._size = 0
        self._left_out = 0
        self._held: dict[str, tuple[str, float]] = {}  # stream → an unfinished line, since when

    def write(self, stream: str, text: str) -> None:
        """Add text as it was written."""
        if self._size > MAX_WAITING:
            self._left_out += len(text)
            return
        self._size += len(text)
        self._pieces.append((stream, text))

    @property
    def waiting(self) -> bool:
        """Whether something has not been given yet."""
        return bool(self._pieces or self._held)

    def take(self, *, everything: bool) -> Iterator[tuple[str, str]]:
        """What can be passed on now, as (stream, text) in the order it was written.

        An unfinished line is held back until it is old, something else was
        written after it, or ``everything`` is asked for.
        """
        self._size = 0
        pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
        left_out, self._left_out = self._left_out, 0
        held, self._held = self._held, {}
        now = self._clock()
        started = [(stream, text) for stream, (text, _) in held.items()]
        runs = [
            (stream, "".join(text for _, text in run))
            for stream, run in groupby([*started, *pieces], key=itemgetter(0))
        ]
        for index, (stream, run_text) in enumerate(runs):
            text = run_text
            whole = text.rfind("\n") + 1
            since = held[stream][1] if stream in held and not whole else now
            is_last = index == len(runs) - 1
            if is_last and whole < len(text) and not everything and now - since < PARTIAL_LINE_S:
                self._held[stream] = (text[whole:], since)
                text = text[:whole]
            if text:
                yield stream, text
        if left_out:
            yield "stderr", f"\n[{left_out:,} characters left out: written faster than they can be kept]\n"
