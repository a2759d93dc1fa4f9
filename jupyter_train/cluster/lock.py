"""One start at a time: a lock between kernels, by a file that is gone afterwards."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_train.home import clusters_folder, private_folder


@contextmanager
def start_lock(name: str, *, root: Path | None = None, wait_s: float = 60.0) -> Iterator[bool]:
    """Hold the lock on starting or removing the cluster ``name``; ends with its process.

    Yields:
        Whether it was got within ``wait_s`` seconds.
    """
    folder = private_folder(clusters_folder(root))
    path = folder / f"{name}.lock"
    handle = _acquire(path, deadline=time.monotonic() + wait_s)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            path.unlink(
                missing_ok=True
            )  # still ours: a waiter sees that its file is gone and makes a new one
            os.close(handle)


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
