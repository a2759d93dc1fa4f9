"""The bytes of a pickle on their way out and in, without a copy of what is large in them.

A long text or ``bytes`` object is written by the pickler in one call. Such a
piece is kept as it is, so that it can become a file of its own: it is written
and sent once, however the small things around it change.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

Buffer = bytes | bytearray | memoryview

#: Pieces of at least this size stand alone.
LARGE_PIECE_BYTES = 256 << 10


class OutStream:
    """What a pickler writes to; :meth:`truncate` takes the latest bytes back."""

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self._starts: list[int] = []
        self._end = 0

    def write(self, data: bytes) -> int:
        """Add ``data``; called by the pickler."""
        is_large = len(data) >= LARGE_PIECE_BYTES
        if is_large or not self._pieces or not isinstance(self._pieces[-1], bytearray):
            self._pieces.append(bytes(data) if is_large else bytearray(data))
            self._starts.append(self._end)
        else:
            self._pieces[-1] += data
        self._end += len(data)
        return len(data)

    def tell(self) -> int:
        """How many bytes there are."""
        return self._end

    def truncate(self, end: int) -> None:
        """Drop what was written from byte ``end`` on."""
        while self._starts and self._starts[-1] >= end:
            del self._starts[-1], self._pieces[-1]
        if self._pieces:
            self._pieces[-1] = self._pieces[-1][: end - self._starts[-1]]
        self._end = end

    def large(self) -> list[tuple[int, int]]:
        """Start and end of each piece that stands alone."""
        return [
            (start, start + len(piece))
            for start, piece in zip(self._starts, self._pieces, strict=True)
            if isinstance(piece, bytes)
        ]

    def slices(self, start: int, end: int) -> list[memoryview]:
        """The bytes from ``start`` to ``end``, as they lie in memory."""
        found = []
        for first, piece in zip(self._starts, self._pieces, strict=True):
            low, high = max(start - first, 0), min(end - first, len(piece))
            if low < high:
                found.append(memoryview(piece)[low:high])
        return found

    def joined(self) -> memoryview:
        """All bytes as one; a copy where there are several pieces."""
        parts = self.slices(0, self._end)
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


class _Pieces(io.RawIOBase):
    """Buffers read one after the other."""

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        self._rest = [view for view in (memoryview(b).cast("B") for b in buffers) if view.nbytes][::-1]

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            return 0
        view = self._rest.pop()
        count = min(len(into), view.nbytes)
        into[:count] = view[:count]
        if count < view.nbytes:
            self._rest.append(view[count:])
        return count


def reader(buffers: Sequence[Buffer]) -> io.BufferedReader:
    """A file that reads ``buffers`` one after the other, without joining them."""
    return io.BufferedReader(_Pieces(buffers), 64 << 10)
