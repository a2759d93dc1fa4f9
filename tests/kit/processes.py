"""Looking at the processes of this machine, by what they carry in their environment."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

RUN = "JUPYTER_TRAIN_RUN"
HOME = "JUPYTER_TRAIN_HOME"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One living process; zombies are not living."""

    pid: int
    command: str
    environment: dict[str, str]  #: as it was when the process was started


def living() -> Iterator[Process]:
    """All processes that this user may look into."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield Process(
                    pid=process.pid, command=" ".join(process.cmdline()), environment=process.environ()
                )


def processes_of_runs(run_id: str | None = None) -> list[Process]:
    """Rank processes and everything they started, of one run or of all: by ``JUPYTER_TRAIN_RUN``."""
    return [p for p in living() if RUN in p.environment and run_id in (None, p.environment[RUN])]


def processes_of_home(home: Path) -> list[Process]:
    """Everything that works for this home but the asking process: kernels, supervisor, scheduler, workers, ranks."""
    return [p for p in living() if p.environment.get(HOME) == str(home) and p.pid != os.getpid()]


def end(pids: Iterable[int]) -> None:
    """Kills these processes, so that what one test left behind does not disturb the next."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def wait_gone(home: Path, timeout_s: float = 10.0) -> list[Process]:
    """Waits until nothing works for ``home`` any more; returns what is left."""
    deadline = time.monotonic() + timeout_s
    while (left := processes_of_home(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
