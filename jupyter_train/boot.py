"""Names this boot of this machine. Importable from every layer: two processes that compare it must read it alike."""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The kernel's id of this boot; "" where the system has no such name. Containers of one machine share it."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
