"""Whether a process of which we only know the number is still that process."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process by its number and the time it was started, since numbers are used again."""

    pid: int
    started: str  #: what `started_at` said of it

    @property
    def is_alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return self.started != "" and started_at(self.pid) == self.started

    def send(self, signum: int) -> bool:
        """Signal it, if it lives."""
        if not self.is_alive:
            return False
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            return False
        return True

    def wait(self, timeout_s: float, *, poll_s: float = 0.02) -> bool:
        """Wait until it is gone. False: it still lives after ``timeout_s`` seconds."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(poll_s)
        return True

    def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)


def this_process() -> Process:
    """The calling process."""
    return Process(pid=os.getpid(), started=started_at(os.getpid()))


def started_at(pid: int) -> str:
    """When that process was started, as text that only it has; empty where there is none.

    On Linux clock ticks since boot together with the boot's own id, else the
    unix time that psutil gives. Nothing for a zombie: it holds nothing any more.
    """
    if pid <= 0:
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else _started_by_psutil(pid)
    except OSError:  # a process that ends while it is read
        return ""
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before it may hold anything
    if fields[0] in "ZX":
        return ""
    return f"{_boot_id()}:{fields[19]}"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started_by_psutil(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"unix:{process.create_time():.2f}"
    except psutil.Error:
        return ""
