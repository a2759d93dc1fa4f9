"""Whether Linux has killed for want of memory: it does not say so to the one it kills, but it counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def oom_kills(root: Path = Path("/")) -> int | None:
    """How often the OOM killer has struck so far, in our control group where that is known, else on the host.

    None where nothing is counted. The group's own number counts kills of any
    OOM killer, the host's too, among its processes alone.
    """
    for path in _counters(root):
        try:
            found = _COUNT.search(path.read_text())
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


def _counters(root: Path) -> Iterator[Path]:
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield groups / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield groups / "memory" / path.lstrip("/") / "memory.oom_control"
    yield root / "proc/vmstat"
