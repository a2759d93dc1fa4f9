"""What ranks use of their host, read once a second: each with its children, by psutil, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading of one rank with its children."""

    cpu_cores: float  #: cores kept busy since the last reading
    memory_bytes: int  #: resident, what it shares with its zygote and its siblings included


class Meter:
    """Reads one rank. ``clock`` in seconds; the first reading has the mean since the rank's start."""

    def __init__(self, pid: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = psutil.Process(pid)
        self._clock = clock
        self._at = clock() - max(0.0, time.time() - self._root.create_time())
        self._seconds: dict[psutil.Process, float] = {}

    def read(self) -> Reading | None:
        """The reading now; None once the rank is gone."""
        try:
            family = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return None
        seconds: dict[psutil.Process, float] = {}
        memory = 0
        for process in family:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.Error:
                continue  # a child that ended meanwhile
            seconds[process] = times.user + times.system
        if not memory:
            return None  # it has ended, and its parent has not asked how
        now = self._clock()
        used = sum(each - self._seconds.get(process, 0.0) for process, each in seconds.items())
        elapsed = max(now - self._at, 1e-3)
        self._at = now
        self._seconds = seconds
        return Reading(cpu_cores=max(0.0, used / elapsed), memory_bytes=memory)


class UsageSampler:
    """The thread ``jupyter-train-usage``. It lives while there are ranks.

    ``tell`` is called in it with the readings by process id.
    """

    def __init__(self, tell: Callable[[Mapping[int, Reading]], None]) -> None:
        self._tell = tell
        self._meters: dict[int, Meter] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def watch(self, pid: int) -> None:
        """Read this rank from now on."""
        try:
            meter = Meter(pid)
        except psutil.Error:
            return
        with self._lock:
            self._meters[pid] = meter
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="jupyter-train-usage", daemon=True
                )
                self._thread.start()

    def forget(self, pid: int) -> None:
        """Read it no longer; the thread ends with the last one."""
        with self._lock:
            self._meters.pop(pid, None)
            if not self._meters:
                self._stop.set()
                self._thread = None

    def close(self) -> None:
        """Read nothing any more."""
        with self._lock:
            self._meters.clear()
            self._stop.set()
            self._thread = None

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(INTERVAL_S):
            with self._lock:
                meters = dict(self._meters)
            readings = {pid: reading for pid, meter in meters.items() if (reading := meter.read())}
            if readings and not stop.is_set():
                self._tell(readings)
