"""Wall and CPU seconds of a stretch of training steps, read inside rank 0: the same code for us and for the peer.

CPU seconds are those of *all* processes that work for one side: every process
whose environment names this side's home, and everything they started. For us
these are kernel, supervisor, scheduler, workers, zygotes and ranks;
for torchrun its agent and the ranks.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kernel import HOME

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process at one moment."""

    pid: int
    parent: int
    cpu_s: float  #: its own, and that of its children that have ended and been waited for
    is_marked: bool  #: its environment names the side that is measured


def read_processes(mark: str, proc: Path = Path("/proc")) -> list[Process]:
    """All processes that can be read. ``mark`` is a ``NAME=value`` of their environment."""
    wanted = mark.encode()
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The command in parentheses may itself hold spaces and parentheses.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            ticks = sum(int(field) for field in fields[11:15])  # utime stime cutime cstime
            variables = (entry / "environ").read_bytes().split(b"\0")
            found.append(
                Process(
                    pid=int(entry.name),
                    parent=int(fields[1]),
                    cpu_s=ticks * _TICK_S,
                    is_marked=wanted in variables,
                )
            )
    return found


def members(processes: Iterable[Process]) -> list[Process]:
    """The marked processes and all their descendants."""
    by_pid: Mapping[int, Process] = {p.pid: p for p in processes}

    def belongs(process: Process | None) -> bool:
        while process is not None:
            if process.is_marked:
                return True
            process = by_pid.get(process.parent)
        return False

    return [p for p in by_pid.values() if belongs(p)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What a stretch of steps took."""

    steps: int
    wall_s: float
    cpu_s: float
    processes: int  #: how many were counted at its end

    @property
    def steps_per_s(self) -> float:
        """Speed by the clock on the wall."""
        return self.steps / self.wall_s

    @property
    def cpu_s_per_step(self) -> float:
        """CPU seconds of all processes together."""
        return self.cpu_s / self.steps


class Meter:
    """Call ``step`` after each optimizer step; the stretch from ``first`` to ``last`` is written to ``file``.

    Ranks other than 0 may call it too: they only count.
    """

    def __init__(self, file: str, first: int, last: int) -> None:
        self._file = file
        self._first = first
        self._last = last
        self._done = 0
        self._mark = f"{HOME}={os.environ[HOME]}"
        self._wall = self._cpu = 0.0
        self._processes = 0

    def step(self) -> None:
        """One more optimizer step is done."""
        self._done += 1
        if os.environ["RANK"] != "0":
            return
        if self._done == self._first:
            counted = members(read_processes(self._mark))
            self._cpu, self._processes = sum(p.cpu_s for p in counted), len(counted)
            self._wall = time.perf_counter()
        elif self._done == self._last:
            wall = time.perf_counter() - self._wall
            counted = members(read_processes(self._mark))
            if len(counted) < self._processes:
                raise RuntimeError(
                    f"{self._processes} processes began the stretch and {len(counted)} are left: "
                    "the CPU seconds of those that ended are not known"
                )
            cpu = sum(p.cpu_s for p in counted) - self._cpu
            told = {
                "steps": self._last - self._first,
                "wall_s": wall,
                "cpu_s": cpu,
                "processes": len(counted),
            }
            Path(self._file).write_text(json.dumps(told))


def read_stretch(file: Path) -> Stretch:
    """What a ``Meter`` wrote; the file is removed, so that nothing is read twice."""
    told = json.loads(file.read_text())
    file.unlink()
    return Stretch(**told)
