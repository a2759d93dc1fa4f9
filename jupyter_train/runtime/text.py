"""Text that ranks write, gathered into few events: whole lines where they come soon, bounded always."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter

MAX_WAITING = 256 * 1024  #: characters between two takes; of the rest only the end is kept
TAIL = 16 * 1024  #: characters of that end: what is written last says how it went
_TAIL_PIECES = 512
PARTIAL_LINE_S = 0.3  #: a line without an end is held back this long


class TextBuffer:
    """Takes pieces from any thread; gives runs of text per stream to one taker, in order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pieces: deque[tuple[str, str]] = deque()
        self._size = 0
        self._left_out = 0
        self._tail: deque[tuple[str, str]] = deque(maxlen=_TAIL_PIECES)
        self._held: dict[str, tuple[str, float]] = {}  # stream → an unfinished line, since when

    def write(self, stream: str, text: str) -> None:
        """Add text as it was written."""
        room = max(0, MAX_WAITING - self._size)
        kept = text if len(text) <= room else text[:room]
        if kept:
            self._size += len(kept)
            self._pieces.append((stream, kept))
        if len(kept) < len(text):
            self._left_out += len(text) - len(kept)
            self._tail.append((stream, text[len(kept) :][-TAIL:]))

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
        tail, self._tail = self._tail, deque(maxlen=_TAIL_PIECES)
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
            end = _last_of(tail)
            left_out -= sum(len(text) for _, text in end)
            yield "stderr", f"\n[{left_out:,} characters left out: written faster than they can be kept]\n"
            yield from end


def _last_of(pieces: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The last characters of ``pieces``, from the start of a line where there is one."""
    runs = [(stream, "".join(text for _, text in run)) for stream, run in groupby(pieces, key=itemgetter(0))]
    end: list[tuple[str, str]] = []
    room = TAIL
    for stream, text in reversed(runs):
        end.insert(0, (stream, text[-room:]))
        room -= len(text)
        if room <= 0:
            break
    stream, first = end[0]
    begins = first.find("\n") + 1
    end[0] = (stream, first[begins:] if begins < len(first) else first)
    return end
