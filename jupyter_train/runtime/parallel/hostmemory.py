"""Memory that all ranks of one host see: a file without a name, mapped by each."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.processes import ATTEMPT_MARK, RUN_MARK
from jupyter_train.runtime.sharedmemory import SHARED_MEMORY, prefix_of


def host_memory(groups: Groups, key: str, size_bytes: int, *, on_disk: bool = False) -> mmap.mmap | None:
    """Zeroed memory of all ranks; None on every rank where one of them cannot have it. Collective.

    Args:
        groups: of ranks that are all on this host.
        key: names it in the store; used once.
        size_bytes: at most half of what the host's shared memory has left, which others need too.
        on_disk: small enough to lie in a temporary file where there is no shared memory.
    """
    path = ""
    if groups.rank == 0:
        folders = [SHARED_MEMORY, Path(tempfile.gettempdir())] if on_disk else [SHARED_MEMORY]
        path = new_file(size_bytes, folders)
        groups.store.set(key, path)
    else:
        path = groups.store.get(key).decode()
    memory = map_file(path, size_bytes)
    everywhere = groups.all_gather(torch.tensor([memory is not None])).all().item()
    if path and groups.rank == 0:
        Path(path).unlink(missing_ok=True)
    return memory if everywhere else None


def new_file(size_bytes: int, folders: Sequence[Path]) -> str:
    """The path of a new file of zeros in the first of ``folders`` that has room; empty where none has."""
    for folder in folders:
        with contextlib.suppress(OSError):
            room = os.statvfs(folder)
            if size_bytes > room.f_bavail * room.f_frsize // 2:
                continue
            descriptor, path = tempfile.mkstemp(prefix=_prefix(), dir=folder)
            try:
                # Not by ftruncate: room that is missing must be missed here, not by SIGBUS in the mapping.
                os.posix_fallocate(descriptor, 0, size_bytes)
            except OSError:
                os.unlink(path)
                continue
            finally:
                os.close(descriptor)
            return path
    return ""


def _prefix() -> str:
    return prefix_of(os.environ.get(RUN_MARK, ""), os.environ.get(ATTEMPT_MARK, ""))


def map_file(path: str, size_bytes: int) -> mmap.mmap | None:
    """The file in memory; None where there is none."""
    if not path:
        return None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return mmap.mmap(descriptor, size_bytes)
    except OSError:
        return None
    finally:
        os.close(descriptor)
