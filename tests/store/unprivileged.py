"""Be a user whom permissions hold for: root may write anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Within, this process is nobody and owns ``folder`` with all in it; nothing changes for who is not root."""
    if os.geteuid() != 0:
        yield
        return
    for item in (folder, *folder.rglob("*")):
        os.chown(item, NOBODY, NOBODY, follow_symlinks=False)
    above = [parent for parent in folder.parents if parent.stat().st_mode & 0o001 == 0]
    modes = [parent.stat().st_mode for parent in above]
    for parent in above:
        parent.chmod(0o711)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        for parent, mode in zip(above, modes, strict=True):
            parent.chmod(mode)
