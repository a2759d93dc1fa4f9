"""A checkpoint's file: written beside its place, synced, then renamed, so that it is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_train.home import private_folder

FORMAT = "jupyter_train checkpoint"
VERSION = 1


def write_file(path: Path, content: Mapping[str, Any]) -> int:
    """Write what ``torch.load(weights_only=True)`` will give again; its size in bytes once it is on the disk.

    Raises:
        OSError: the disk is full or read-only; nothing is left behind.
    """
    import torch

    private_folder(path.parent)
    part = path.with_name(path.name + ".part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            torch.save(dict(content), file)
            file.flush()
            size = os.fstat(fd).st_size
            os.fsync(fd)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return size


def sync_folder(folder: Path) -> None:
    """The names in ``folder`` outlive a power cut; nothing where its file system cannot promise that."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass  # some network disks: the file itself has been synced
    finally:
        os.close(fd)
