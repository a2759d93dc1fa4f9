"""One start at a time: a lock between kernels, by a file that is gone afterwards.

The supervisor that a start begins holds it too, so that a starter that leaves
before the cluster is there does not let another one start a second.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jupyter_train.home import clusters_folder, private_folder


@dataclass(slots=True)
class StartLock:
    """The lock, if it was got: true where it is held."""

    path: Path
    handle: int | None
    given_away: bool = False  #: a process that has inherited the handle removes the file

    def __bool__(self) -> bool:
        return self.handle is not None

    def release(self) -> None:
        """Let the next one in: everybody who shares the handle lets go. Twice does nothing."""
        if self.handle is None:
            return
        if _is_still(self.path, self.handle):
            # Still ours: a waiter sees that its file is gone and makes a new one.
            self.path.unlink(missing_ok=True)
        with suppress(OSError):
            fcntl.flock(self.handle, fcntl.LOCK_UN)
        self._close()

    def leave(self) -> None:
        """Release it, or only our share of it where another process has it too."""
        if self.given_away:
            self._close()
        else:
            self.release()

    def _close(self) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


@contextmanager
def start_lock(name: str, *, root: Path | None = None, wait_s: float = 60.0) -> Iterator[StartLock]:
    """Hold the lock on starting or removing the cluster ``name``; ends with its process.

    Yields:
        The lock: true if it was got within ``wait_s`` seconds.
    """
    private_folder(clusters_folder(root))
    path = lock_path(name, root)
    lock = StartLock(path, _acquire(path, deadline=time.monotonic() + wait_s))
    try:
        yield lock
    finally:
        lock.leave()


def lock_path(name: str, root: Path | None = None) -> Path:
    """The file that is locked."""
    return clusters_folder(root) / f"{name}.lock"


def _acquire(path: Path, *, deadline: float) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _locked(handle) and _is_still(path, handle):
            return handle
        os.close(handle)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EINTR):
            return False
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
            return True  # a network disk without locks: two starts at once may then give two clusters
        raise
    return True


def _is_still(path: Path, handle: int) -> bool:
    """Whether the file that was locked is the one that lies there now."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
