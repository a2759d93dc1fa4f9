"""A local cluster that ends with its test, and looking at its processes from outside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_train.cluster import local, records
from jupyter_train.cluster.records import ClusterRecord
from jupyter_train.cluster.session import Session
from tests.kit import processes


@pytest.fixture
def record() -> ClusterRecord:
    """The record of a cluster that nobody keeps."""
    return ClusterRecord(
        name="local-12345678",
        kind="local",
        address="tls://127.0.0.1:8786",
        workers=2,
        threads=1,
        pid=2**22 + 1,
        pid_started="never",
        hostname=records.socket.gethostname(),
        fingerprint="1234567890abcdef",
        prefix="/nowhere",
        version="0",
        created=1.0,
        idle_timeout_s=1800.0,
    )


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., ClusterRecord]]:
    """Start this environment's local cluster with one worker; all clusters of the home end with the test."""

    def begin(n: int = 1, *, idle_timeout_s: float = 600.0) -> ClusterRecord:
        return local.start(n, idle_timeout_s=idle_timeout_s)

    yield begin
    for one in records.live():
        local.stop_record(one)
    processes.end(p.pid for p in processes.wait_gone(home))


@pytest.fixture
def session(start: object) -> Iterator[Session]:
    """A kernel's connections, closed before the clusters end."""
    opened = Session()
    yield opened
    opened.close()


def eventually(claim: Callable[[], bool], *, within_s: float = 15.0) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def pid_of(home: Path, name: str) -> int:
    """The process of that name (``scheduler``, ``w0``) of the cluster of a home; 0 where there is none."""
    for process in processes.processes_of_home(home):
        try:
            if Path(f"/proc/{process.pid}/comm").read_text().strip() == f"jt-{name}":
                return process.pid
        except OSError:
            continue
    return 0


def files(home: Path) -> list[str]:
    """What lies in the folder of clusters."""
    return sorted(str(path.relative_to(home)) for path in home.glob("clusters/**/*"))
