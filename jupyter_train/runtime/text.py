"""What a rank shows, gathered into few events: text in whole lines where they come soon, displays in their place."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

BOUND = 256 * 1024  #: characters that may wait; whoever writes more has to wait
PARTIAL_LINE_S = 0.3  #: a line without an end is held back this long
EVENT_CHARACTERS = 128 * 1024  #: of one event at most, but for a display

Piece = str | Mapping[str, Any]  #: text, or the payload of something that is no text


class OutputBuffer:
    """Takes pieces from any thread; gives runs of text, and what stood between them, to one taker, in order.

    It has no lock, since an exception may be raised asynchronously in whoever
    writes. What waits is counted well enough to keep it bounded.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pieces: deque[tuple[str, Piece]] = deque()
        self._size = 0
        self._held: tuple[str, str, float] | None = None  # stream, an unfinished line, since when

    def write(self, stream: str, text: str) -> None:
        """Add text as it was written."""
        self._size += len(text)
        self._pieces.append((stream, text))

    def put(self, stream: str, payload: Mapping[str, Any], size: int) -> None:
        """Add what is no text; ``size`` in characters."""
        self._size += size
        self._pieces.append((stream, payload))

    @property
    def is_full(self) -> bool:
        """More waits than should."""
        return self._size > BOUND

    @property
    def waiting(self) -> bool:
        """Whether something has not been given yet."""
        return bool(self._pieces or self._held)

    def take(self, *, everything: bool) -> Iterator[tuple[str, Piece]]:
        """What can be passed on now, in the order in which it came; text in parts of a bounded size.

        An unfinished line is held back until it is old, something else came
        after it, or ``everything`` is asked for.
        """
        self._size = 0
        pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
        held, self._held = self._held, None
        if held is not None:
            pieces.insert(0, held[:2])
        runs = list(_runs(pieces))
        for index, (stream, piece) in enumerate(runs):
            if not isinstance(piece, str):
                yield stream, piece
                continue
            text = piece
            whole = text.rfind("\n") + 1
            if index == len(runs) - 1 and whole < len(text) and not everything:
                since = held[2] if held is not None and not index and not whole else self._clock()
                if self._clock() - since < PARTIAL_LINE_S and len(text) - whole < EVENT_CHARACTERS:
                    self._held = (stream, text[whole:], since)
                    text = text[:whole]
            for part in _parts(text):
                yield stream, part


def _runs(pieces: list[tuple[str, Piece]]) -> Iterator[tuple[str, Piece]]:
    for (stream, is_text), run in groupby(pieces, key=lambda piece: (piece[0], isinstance(piece[1], str))):
        if is_text:
            yield stream, "".join(piece for _, piece in run if isinstance(piece, str))
        else:
            yield from run


def _parts(text: str) -> Iterator[str]:
    """``text`` in parts of a bounded size, cut behind a line where there is one."""
    at = 0
    while at < len(text):
        end = at + EVENT_CHARACTERS
        if end < len(text):
            end = text.rfind("\n", at, end) + 1 or end
        yield text[at:end]
        at = end
