"""A Dask cluster as anybody starts one on this machine, ``dask scheduler`` and ``dask worker``: its workers have nannies."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernel import environment

_DASK = [sys.executable, "-c", "from dask.cli import run_cli; run_cli()"]
_QUIET = ["--no-dashboard", "--host", "127.0.0.1"]
START_S = 60.0


class PlainCluster:
    """One scheduler and ``size`` nannies, each with a worker."""

    def __init__(self, home: Path, folder: Path, *, size: int) -> None:
        self._environment = environment(home)
        self._folder = folder
        self._size = size
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._nannies: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """Of the scheduler, once it has written it down."""
        return str(json.loads(self._file.read_text())["address"])

    @property
    def nannies(self) -> list[int]:
        """Process ids of those that live."""
        return [nanny.pid for nanny in self._nannies if nanny.poll() is None]

    @property
    def scheduler(self) -> int:
        """Its process id."""
        assert self._scheduler is not None
        return self._scheduler.pid

    @property
    def _file(self) -> Path:
        return self._folder / "scheduler.json"

    def start(self) -> None:
        """Start it; workers register by and by.

        Raises:
            RuntimeError: the scheduler is not there in time.
        """
        self._scheduler = self._dask("scheduler", "--port", "0", "--scheduler-file", str(self._file))
        end = time.monotonic() + START_S
        while not self._file.exists():
            if time.monotonic() > end or self._scheduler.poll() is not None:
                raise RuntimeError(f"no scheduler; {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        self.fill()

    def fill(self) -> None:
        """Start a nanny for each that is dead."""
        self._nannies = [nanny for nanny in self._nannies if nanny.poll() is None]
        while len(self._nannies) < self._size:
            self._nannies.append(
                self._dask(
                    *("worker", "--nthreads", "1", "--scheduler-file", str(self._file)),
                    *("--local-directory", str(self._folder)),
                )
            )

    def _dask(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*_DASK, *arguments, *_QUIET],
                env=self._environment,
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def close(self) -> None:
        """End all of it."""
        for process in (*self._nannies, *([self._scheduler] if self._scheduler else [])):
            process.terminate()
        for process in (*self._nannies, *([self._scheduler] if self._scheduler else [])):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
                continue
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def plain_cluster(home: Path, folder: Path, *, size: int) -> Iterator[PlainCluster]:
    """One for the length of a with statement."""
    folder.mkdir(exist_ok=True)
    cluster = PlainCluster(home, folder, size=size)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
