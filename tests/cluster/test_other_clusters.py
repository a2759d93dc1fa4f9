"""Clusters that were not started here: an address, a Client."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_train._version import __version__
from jupyter_train.cluster import environment
from jupyter_train.cluster.fingerprint import fingerprint
from jupyter_train.cluster.records import ClusterRecord
from jupyter_train.cluster.session import Session
from jupyter_train.errors import ClusterError, ClusterUnreachable, EnvironmentMismatch

pytestmark = pytest.mark.cluster


LAB = """
import asyncio, dask
dask.config.set({"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []})
from distributed import Scheduler, Worker

async def main():
    where = dict(host="127.0.0.1", dashboard=False)
    async with Scheduler(port=0, **where) as scheduler, Worker(scheduler.address, name="theirs", nthreads=1, **where):
        print(scheduler.address, flush=True)
        await scheduler.finished()

asyncio.run(main())
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of somebody's cluster of one worker, in another process."""
    with subprocess.Popen(
        [sys.executable, "-c", LAB],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture
def session() -> Iterator[Session]:
    opened = Session()
    yield opened
    opened.close()


def test_an_address_is_used_once(lab: str, session: Session) -> None:
    connection = session.use(lab)
    assert (connection.kind, connection.name) == ("address", lab)
    assert session.use(lab) is connection
    assert session.use(lab.removeprefix("tcp://")) is connection
    assert session.open() is connection
    assert len(connection.workers()) == 1
    with pytest.raises(ClusterError, match="was not started here"):
        connection.scale(2)
    with pytest.raises(ClusterError, match="was not started here"):
        session.stop(lab)


def test_a_client_of_the_users_stays_theirs(lab: str, session: Session) -> None:
    from distributed import Client

    with Client(lab, set_as_default=False) as client:
        connection = session.use(client)
        assert connection.kind == "client"
        assert session.use(client) is connection
        session.close()
        assert client.status == "running"
        assert client.submit(int, "3").result() == 3


def test_a_client_that_is_closed_or_asynchronous_is_refused(lab: str, session: Session) -> None:
    from distributed import Client

    client = Client(lab, set_as_default=False)
    client.close()
    with pytest.raises(ClusterUnreachable, match="the Client is closed"):
        session.use(client)
    with pytest.raises(ClusterError, match="asynchronous"):
        session.use(type("Async", (), {"asynchronous": True})())


def test_a_difference_is_told_before_anything_is_installed(
    lab: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = environment.here()
    monkeypatch.setattr(environment, "here", lambda: {**ours, "torch": "1.13"})
    with pytest.raises(EnvironmentMismatch, match=r"have torch .*, and this kernel has 1\.13") as caught:
        session.use(lab)
    assert "where" in str(caught.value)
    assert session.current is None


def test_a_kernel_with_another_jupyter_train_is_refused_and_the_first_one_goes_on(
    lab: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = session.use(lab)
    newer = Session()
    with monkeypatch.context() as patched:
        patched.setattr(environment, "__version__", "99.0")
        with pytest.raises(
            EnvironmentMismatch,
            match=rf"have jupyter_train {re.escape(__version__)}, and this kernel has 99\.0\. Use the same",
        ):
            newer.use(lab)
    assert newer.current is None
    assert first.is_alive
    assert [worker["agent"] for worker in first.workers()] == [True]


def test_a_local_cluster_of_another_environment_is_looked_at_before_it_is_used(
    lab: str, session: Session, record: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    ours = environment.here()
    monkeypatch.setattr(environment, "here", lambda: {**ours, "jupyter_train": "99.0"})
    with Client(lab, set_as_default=False) as client:
        with pytest.raises(EnvironmentMismatch, match=r"this kernel has 99\.0"):
            session._take(client, name="local-old", kind="local", record=record)
        session._take(client, name="local", kind="local", record=replace(record, fingerprint=fingerprint()))


def test_nothing_answers_there(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_train.cluster import session as sessions

    monkeypatch.setattr(sessions, "CONNECT_TIMEOUT_S", 0.3)
    with pytest.raises(ClusterUnreachable, match=r"nothing answers at tcp://127\.0\.0\.1:9"):
        session.use("tcp://127.0.0.1:9")


def test_a_cluster_that_vanished_says_what_to_do(lab: str, session: Session) -> None:
    connection = session.use(lab)
    connection.client.close()
    with pytest.raises(ClusterUnreachable, match="is gone"):
        session.open()
    assert session.current is None


def test_an_unknown_name_names_the_nearest(session: Session) -> None:
    with pytest.raises(ClusterError, match="Did you mean local"):
        session.use("lokal")


def test_the_end_of_a_clients_tries_to_reconnect_is_no_news() -> None:
    def record(text: str, error: BaseException | None) -> logging.LogRecord:
        info = None if error is None else (type(error), error, None)
        return logging.LogRecord("distributed.client", logging.ERROR, "client.py", 1, text, (), info)

    session = Session()
    assert not session._is_news(record("", asyncio.CancelledError()))
    assert session._is_news(record("", ValueError("something else")))
