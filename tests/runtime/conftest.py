"""A real Dask cluster with agents, shared by the engine's tests of one module."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit import leaks, processes
from tests.runtime.kit import Cluster, TinyController


@contextmanager
def new_engine() -> Iterator[Cluster]:
    """Two workers under Nannies, one thread each, an agent on both, in a home of their own."""
    from distributed import Client, LocalCluster

    from jupyter_train.runtime.agent import Agent

    home = Path(tempfile.mkdtemp(prefix="jt-"))
    before = os.environ.get(processes.HOME)
    os.environ[processes.HOME] = str(home)
    try:
        with (
            LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=2,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                silence_logs=50,
            ) as local,
            Client(local) as client,  # type: ignore[no-untyped-call]
        ):
            client.register_plugin(TinyController())
            client.register_plugin(Agent())
            cluster = Cluster(client, home)
            cluster.wait_ready()
            yield cluster
    finally:
        if before is None:
            del os.environ[processes.HOME]
        else:
            os.environ[processes.HOME] = before
        left = _outliving(home, timeout_s=5.0)
        processes.end(p.pid for p in left)
        shutil.rmtree(home, ignore_errors=True)
        assert not left, "the cluster left " + "; ".join(f"{p.pid} {p.command[:200]}" for p in left)


def _outliving(home: Path, *, timeout_s: float) -> list[processes.Process]:
    deadline = time.monotonic() + timeout_s
    while True:
        left = [
            p
            for p in processes.processes_of_home(home)
            if not any(kept in p.command for kept in leaks.KEPT_PROCESSES)
        ]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


@pytest.fixture(scope="module")
def engine() -> Iterator[Cluster]:
    with new_engine() as cluster:
        yield cluster


@pytest.fixture
def own_engine() -> Iterator[Cluster]:
    """For tests that kill parts of it."""
    with new_engine() as cluster:
        yield cluster
