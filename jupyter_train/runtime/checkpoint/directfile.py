"""A file that is written past the page cache: a tenth of the CPU time, and the cell's own pages stay cached.

Through the cache, 133 MB cost 80 to 380 ms of kernel time, which a rank on the same core
waits for; past it 6 ms. Where a file system does not have it (tmpfs), the file is written plainly.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path
from types import TracebackType

BLOCK_BYTES = 4096  #: disks take multiples of it; every common file system does
BUFFER_BYTES = 2 << 20
LARGE_BYTES = 1 << 18  #: what is longer is not copied, where it can be written as it lies
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class DirectFile:
    """A new file, mode 0600, that takes bytes in order. For one thread; ``with`` closes it.

    Raises:
        OSError: from any method: the disk is full or read-only, …
    """

    def __init__(self, path: Path) -> None:
        self._is_direct = hasattr(os, "O_DIRECT")
        try:
            self._fd = os.open(path, _FLAGS | getattr(os, "O_DIRECT", 0), 0o600)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self._is_direct = False
            self._fd = os.open(path, _FLAGS, 0o600)
        self._path = path
        self._buffer = mmap.mmap(-1, BUFFER_BYTES)  # on a page, as the disk wants it
        self._filled = 0
        self.size_bytes = 0
        self.error: OSError | None = None  #: the disk's, which who calls `write` may not pass on

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def write(self, data: bytes | memoryview) -> int:
        """Take ``data``; it is copied, and some of it may be on the disk only after :meth:`sync`."""
        view = memoryview(data).cast("B")
        done = self._from_where_it_lies(view)
        while done < len(view):
            some = min(len(view) - done, BUFFER_BYTES - self._filled)
            self._buffer[self._filled : self._filled + some] = view[done : done + some]
            self._filled += some
            done += some
            if self._filled == BUFFER_BYTES:
                self._put(BUFFER_BYTES)
        self.size_bytes += done
        return done

    def _from_where_it_lies(self, view: memoryview) -> int:
        """Write whole blocks of ``view`` without copying them, where file and memory are at a block; how many bytes."""
        if not self._is_direct or len(view) < LARGE_BYTES or self._filled % BLOCK_BYTES:
            return 0
        if _address(view) % BLOCK_BYTES:
            return 0
        if self._filled:
            self._put(self._filled)
        whole = len(view) - len(view) % BLOCK_BYTES
        try:
            self._write_all(view[:whole])
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self._plainly()
            self._write_all(view[:whole])
        return whole

    def flush(self) -> None:
        """Nothing: `torch.save` calls it, and what is left is written by :meth:`sync`."""

    def sync(self) -> None:
        """All of it is on the disk when this returns. Nothing can be written afterwards."""
        if self._filled:
            whole = self._filled - self._filled % BLOCK_BYTES
            rest = self._buffer[whole : self._filled]
            if whole:
                self._put(whole)
            if rest:
                self._plainly()
                self._write_all(memoryview(rest))
            self._filled = 0
        os.fsync(self._fd)

    def _put(self, size: int) -> None:
        with memoryview(self._buffer) as view:
            try:
                self._write_all(view[:size])
            except OSError as error:
                if not self._is_direct or error.errno not in _REFUSED:
                    raise
                self._plainly()
                self._write_all(view[:size])
        self._filled = 0

    def _write_all(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            try:
                some = os.write(self._fd, view[done:])
            except OSError as error:
                error.filename = error.filename or str(self._path)
                self.error = error
                raise
            done += some
            if done < len(view) and some % BLOCK_BYTES:
                self._plainly()  # a disk that is nearly full took part of it

    def _plainly(self) -> None:
        if self._is_direct:
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
            self._is_direct = False


def _address(view: memoryview) -> int:
    import numpy as np

    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])
