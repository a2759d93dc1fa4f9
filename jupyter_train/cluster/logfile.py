"""The log of a cluster: one file that all its processes append to, bounded in size."""

from __future__ import annotations

import os
from pathlib import Path

MAX_BYTES = 4_000_000
KEPT_BYTES = 1_000_000


def bound(path: Path, *, max_bytes: int = MAX_BYTES, kept_bytes: int = KEPT_BYTES) -> None:
    """Where the log has grown too long, keep its end as ``log.1`` and empty it.

    The file itself stays: several processes append to it, and one that they
    cannot write to would stop them.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return
        handle = os.open(path.with_name(path.name + ".1"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as kept:
            kept.write(tail(path, kept_bytes))
        os.truncate(path, 0)
    except OSError:  # a full disk: the next time may do
        pass


def tail(path: Path, size: int) -> bytes:
    """The last bytes of a file; none where there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read()
    except OSError:
        return b""


def last_lines(path: Path, lines: int) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(tail(path, 20_000).decode(errors="replace").rstrip().splitlines()[-lines:])
