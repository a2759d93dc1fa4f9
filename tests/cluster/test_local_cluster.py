"""The local cluster with real processes: found, shared, repaired, ended, and nothing left of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jupyter_train.cluster import local, records
from jupyter_train.cluster.records import ClusterRecord
from jupyter_train.cluster.session import Session
from jupyter_train.errors import ClusterError
from tests.cluster.conftest import eventually, files, pid_of
from tests.kit import processes

pytestmark = pytest.mark.cluster

Start = Callable[..., ClusterRecord]

STARTER = """
import json, sys, time
from jupyter_train.cluster import local
record = local.start(1, idle_timeout_s=600)
print(json.dumps([record.pid, record.address]))
"""


def starter(code: str = STARTER, **options: object) -> subprocess.Popen[str]:
    """Another process that starts, or finds, the cluster."""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


def speaks_http(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=5) as probe:
        probe.sendall(b"GET /info/main/workers.html HTTP/1.0\r\n\r\n")
        try:
            return probe.recv(100).startswith(b"HTTP")
        except ConnectionError:
            return False


def is_gone(home: Path) -> bool:
    return not processes.processes_of_home(home) and files(home) == []


def test_it_outlives_its_starter_is_found_by_others_and_leaves_nothing(start: Start, home: Path) -> None:
    with starter() as first:
        pid, address = json.loads(first.communicate(timeout=60)[0])
    (record,) = records.live()
    assert (record.pid, record.address) == (pid, address)
    assert psutil.Process(pid).ppid() != os.getpid()
    with starter() as second:
        assert json.loads(second.communicate(timeout=60)[0]) == [pid, address]
    local.stop_record(record)
    assert is_gone(home)  # at once: stop returns when it is


def test_two_starts_at_once_give_one_cluster(start: Start, home: Path) -> None:
    with starter() as one, starter() as two:
        told = [json.loads(process.communicate(timeout=60)[0]) for process in (one, two)]
    assert told[0] == told[1]
    assert len(records.live()) == 1


def test_a_start_that_is_left_half_way_goes_on_and_the_next_one_finds_it(start: Start, home: Path) -> None:
    with pytest.raises(KeyboardInterrupt), local.starting(1):
        raise KeyboardInterrupt  # as an interrupt of the cell in the seconds that it takes
    assert records.live() == []
    assert start(1).pid == start(1).pid
    assert len(records.live()) == 1
    assert not list((home / "clusters").glob("*.lock"))


def test_each_process_has_a_session_of_its_own_and_none_of_the_kernels_variables(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    record = start(1)
    pids = [record.pid, pid_of(home, "scheduler"), pid_of(home, "w0")]
    assert all(pids)
    assert [os.getsid(pid) for pid in pids] == pids  # an interrupt of the kernel's group does not reach them
    for process in processes.processes_of_home(home):
        assert not [name for name in process.environment if name.startswith("JPY_")]


def test_records_and_certificates_are_readable_by_their_owner_only(start: Start, home: Path) -> None:
    record = start(1)
    assert records.record_path(record.name).stat().st_mode & 0o777 == 0o600
    for path in record.folder().iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_nothing_but_dask_on_loopback_listens(start: Start, home: Path) -> None:
    start(1)
    for process in processes.processes_of_home(home):
        listening = [
            c.laddr
            for c in psutil.Process(process.pid).net_connections("tcp")
            if c.status == psutil.CONN_LISTEN
        ]
        assert {address.ip for address in listening} <= {"127.0.0.1"}
        assert len(listening) <= 1  # the scheduler's and each worker's own port; no web server
        assert not any(speaks_http(address) for address in listening)


def test_whoever_has_no_certificate_is_refused(start: Start) -> None:
    from distributed import Security
    from distributed.comm import connect

    from jupyter_train.cluster import security

    record = start(1)
    others = record.folder().parent / "others"
    security.write_certificates(others)

    async def ask(address: str, shown: Security) -> object:
        comm = await connect(address, timeout=2, **shown.get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            return await comm.read()
        finally:
            comm.abort()

    with pytest.raises(OSError):
        asyncio.run(ask(record.address.replace("tls://", "tcp://"), Security(require_encryption=False)))
    with pytest.raises(OSError):
        asyncio.run(ask(record.address, security.cluster_security(others)))
    ca_alone = Security(tls_ca_file=str(record.folder() / "ca.pem"), require_encryption=True)
    with pytest.raises((OSError, TypeError)):
        asyncio.run(ask(record.address, ca_alone))
    answer = asyncio.run(ask(record.address, security.cluster_security(record.folder())))
    assert answer["address"] == record.address  # type: ignore[index]


def test_an_idle_one_ends_by_itself(start: Start, home: Path) -> None:
    start(1, idle_timeout_s=0.5)
    assert eventually(lambda: is_gone(home))


def test_a_client_keeps_it(start: Start, session: Session, home: Path) -> None:
    connection = session.start(1, threads=None, idle_timeout_s=3.0, home=None)
    time.sleep(4.5)  # longer than it would live alone
    assert connection.is_alive
    assert len(connection.workers()) == 1
    session.close()
    assert eventually(lambda: is_gone(home))


def test_a_killed_worker_is_replaced(start: Start, session: Session, home: Path) -> None:
    connection = session.start(2, threads=None, idle_timeout_s=600, home=None)
    before = {worker["name"]: worker["address"] for worker in connection.workers()}
    os.kill(pid_of(home, "w0"), signal.SIGKILL)

    def replaced() -> bool:
        now = {worker["name"]: worker["address"] for worker in connection.workers()}
        return set(now) == {"w0", "w1"} and now["w0"] != before["w0"] and now["w1"] == before["w1"]

    assert eventually(replaced)


def test_what_a_dead_worker_leaves_behind_is_ended(start: Start, session: Session, home: Path) -> None:
    connection = session.start(1, threads=None, idle_timeout_s=600, home=None)

    def detached() -> int:
        import subprocess

        return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid

    pid = next(iter(connection.client.run(detached).values()))
    os.kill(pid_of(home, "w0"), signal.SIGKILL)
    assert eventually(lambda: not psutil.pid_exists(pid))


def test_without_its_scheduler_it_ends_cleanly(start: Start, home: Path) -> None:
    start(1)
    os.kill(pid_of(home, "scheduler"), signal.SIGKILL)
    assert eventually(lambda: is_gone(home))


def test_without_its_supervisor_everything_ends_and_the_next_reader_cleans_up(
    start: Start, home: Path
) -> None:
    record = start(2)
    os.kill(record.pid, signal.SIGKILL)
    assert eventually(lambda: not processes.processes_of_home(home))
    assert files(home) != []
    assert records.live() == []
    assert files(home) == []


def test_after_a_killed_supervisor_the_next_start_works(start: Start, home: Path) -> None:
    first = start(1)
    os.kill(first.pid, signal.SIGKILL)
    assert first.process.wait(5)
    second = start(1)
    assert second.pid != first.pid
    assert second.is_alive


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_ends_it_cleanly(start: Start, home: Path, signum: signal.Signals) -> None:
    record = start(1)
    os.kill(record.pid, signum)
    assert record.process.wait(15)
    assert is_gone(home)


def test_a_frozen_one_can_be_stopped_all_the_same(start: Start, home: Path) -> None:
    record = start(1)
    for name in ("scheduler", "w0"):
        os.kill(pid_of(home, name), signal.SIGSTOP)
    os.kill(record.pid, signal.SIGSTOP)
    local.stop_record(record, timeout_s=0.5)
    assert eventually(lambda: is_gone(home))


def test_frozen_processes_do_not_keep_the_supervisor_from_ending(start: Start, home: Path) -> None:
    record = start(1)
    os.kill(pid_of(home, "w0"), signal.SIGSTOP)
    local.stop_record(record)
    assert is_gone(home)


def test_one_whose_files_were_deleted_ends_once_nobody_needs_it(start: Start, home: Path) -> None:
    old = start(1)
    shutil.rmtree(home / "clusters")
    new = start(1)
    assert old.process.wait(15)
    assert records.live() == [new]
    assert local.start(1) == new


def test_scaling_up_and_down(start: Start, session: Session, home: Path) -> None:
    connection = session.start(1, threads=None, idle_timeout_s=600, home=None)
    connection.scale(3)
    assert sorted(worker["name"] for worker in connection.workers()) == ["w0", "w1", "w2"]
    connection.scale(1)
    assert eventually(lambda: [worker["name"] for worker in connection.workers()] == ["w0"])
    assert eventually(lambda: pid_of(home, "w2") == pid_of(home, "w1") == 0)
    (record,) = records.live()
    assert record.workers == 1
    with pytest.raises(ClusterError, match="1 to 256 workers"):
        connection.scale(0)


def test_a_run_of_more_ranks_makes_room(start: Start, session: Session) -> None:
    session.start(1, threads=None, idle_timeout_s=600, home=None)
    ranks = os.cpu_count() or 1
    connection = session.open(ranks=ranks + 1)
    assert len(connection.workers()) == ranks + 1
    assert len(connection.remarks) == 1
    assert session.open(ranks=1) is connection
    assert len(connection.workers()) == ranks + 1
    assert connection.remarks == []


def test_stop_from_a_kernel_returns_when_it_is_gone_and_the_next_run_starts_another(
    start: Start, session: Session, home: Path
) -> None:
    first = session.start(1, threads=None, idle_timeout_s=600, home=None)
    assert session.stop() == first.name
    assert is_gone(home)
    second = session.open(ranks=1)
    assert second is not first
    assert len(second.workers()) == 1


def test_a_kernel_goes_on_with_a_new_one_when_its_cluster_was_stopped_elsewhere(
    start: Start, session: Session
) -> None:
    first = session.start(1, threads=None, idle_timeout_s=600, home=None)
    assert first.record is not None
    local.stop_record(first.record)
    assert not first.is_alive
    second = session.open(ranks=1)
    assert second.is_alive
    assert session.current is second


def test_stopping_what_is_not_there_says_so(home: Path) -> None:
    with pytest.raises(ClusterError, match="no local cluster of this environment"):
        Session().stop()
    with pytest.raises(ClusterError, match="there is no cluster 'lab'"):
        Session().stop("lab")


def test_a_starter_without_standard_streams_prints_nothing_and_starts_it(start: Start, home: Path) -> None:
    code = "import os\nfor fd in (0, 1, 2): os.close(fd)\n" + STARTER.replace("print", "(lambda x: None)")
    with starter(code, stderr=subprocess.PIPE) as process:
        assert process.communicate(timeout=60) == ("", "")  # ends although the cluster lives on
    assert process.returncode == 0
    assert len(records.live()) == 1


def test_nothing_of_the_starters_files_stays_open(start: Start, home: Path) -> None:
    reads, writes = os.pipe()
    os.set_inheritable(writes, True)
    start(1)
    os.close(writes)
    assert os.read(reads, 1) == b""  # else a process of the cluster held the pipe
    os.close(reads)


def test_a_start_that_fails_says_why_and_leaves_nothing(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = home / "broken"
    broken.mkdir()
    (broken / "distributed.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(ClusterError, match="no such luck"):
        local.start(1)
    assert eventually(lambda: is_gone(home))


def test_another_version_of_the_environment_has_its_own_and_the_old_one_ends(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = start(1)
    monkeypatch.setattr(local, "fingerprint", lambda: "f" * 16)
    new = start(1)
    assert new.name == "local-ffffffff"
    assert eventually(lambda: [one.name for one in records.live()] == [new.name])
    assert old.process.wait(5)
