"""The kernel's way to the controller, over a real cluster with a client in another thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from jupyter_train.control import sending
from jupyter_train.control.client import CHUNK_BYTES, ControllerClient, ensure
from jupyter_train.control.sending import DIRECT_CHUNK_BYTES
from jupyter_train.errors import (
    ClusterError,
    ClusterUnreachable,
    EnvironmentMismatch,
    NotEnoughWorkers,
    RunError,
    RunNotFound,
)
from jupyter_train.record import fold, unpack_event
from tests.control.conftest import spec
from tests.control.fake_agent import FakeAgent

pytestmark = pytest.mark.cluster

UNKNOWN = "20260101-000000-000000"


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address=":0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def control(client: Client) -> ControllerClient:
    ensure(client, FakeAgent("done"))
    return ControllerClient(client)


def agents(client: Client) -> list[FakeAgent]:
    """The agents, by the names of their workers."""
    workers = sorted(client.cluster.workers.values(), key=lambda w: w.name)
    return [w.plugins["jupyter-train-agent"] for w in workers]


def test_a_cluster_is_prepared_once_however_many_kernels_come(client: Client) -> None:
    with ThreadPoolExecutor(4) as kernels:
        hellos = list(kernels.map(lambda _: ensure(client, FakeAgent()), range(4)))
    assert len({h["controller"] for h in hellos}) == 1
    assert all(w["agent"] for h in hellos for w in h["workers"])
    assert all(len(a.calls("train_launch")) == 0 for a in agents(client))


def test_a_run_is_followed_to_its_end(control: ControllerClient) -> None:
    reply = control.submit(spec(2))
    after, events = 0, []
    while True:
        news = control.events(reply["run_id"], after, wait_s=5)
        after = news["last"]
        events += [unpack_event(data) for data in news["events"]]
        if news["terminal"]:
            break
    assert fold(events).state == "SUCCEEDED"
    assert control.stop(reply["run_id"]) == "SUCCEEDED"


def test_the_controllers_errors_arrive_as_themselves(control: ControllerClient) -> None:
    with pytest.raises(NotEnoughWorkers, match="needs 3 workers but the cluster has 2"):
        control.submit(spec(3))
    with pytest.raises(RunNotFound):
        control.events(UNKNOWN)
    with pytest.raises(RunNotFound):
        control.stop(UNKNOWN)


def test_threads_share_one_client(control: ControllerClient) -> None:
    run_id = control.submit(spec(1))["run_id"]
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(control.events, run_id, 99, 0.2) for _ in range(3)]
        assert [w["name"] for w in threads.submit(control.hello).result()["workers"]] == ["0", "1"]
        assert all(w.result()["terminal"] in (True, False) for w in waiting)


def test_a_file_is_fetched_in_pieces(client: Client, control: ControllerClient, tmp_path: Path) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 256) + b"the end"
    agents(client)[1].files["result-1.bin"] = data
    worker = control.hello()["workers"][1]["address"]
    seen: list[tuple[int, int]] = []
    size = control.fetch(
        UNKNOWN, "result-1.bin", worker, tmp_path / "result", progress=lambda *p: seen.append(p)
    )
    assert size == len(data)
    assert (tmp_path / "result").read_bytes() == data
    assert seen == [(CHUNK_BYTES, size), (size, size)]


def test_of_a_file_no_more_is_fetched_than_was_asked_for(
    client: Client, control: ControllerClient, tmp_path: Path
) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 256) + b"what is large"
    agents(client)[1].files["result-1.bin"] = data
    worker = control.hello()["workers"][1]["address"]
    for limit in (3, CHUNK_BYTES + 4, len(data) + 100):
        size = control.fetch(UNKNOWN, "result-1.bin", worker, tmp_path / "result", limit=limit)
        assert size == min(limit, len(data))
        assert (tmp_path / "result").read_bytes() == data[:limit]


def test_another_worker_of_the_host_stands_in_for_a_lost_one(
    client: Client, control: ControllerClient, tmp_path: Path
) -> None:
    for agent in agents(client):
        agent.files["result-1.bin"] = b"data"
    assert control.fetch(UNKNOWN, "result-1.bin", "tcp://127.0.0.1:1", tmp_path / "result") == 4
    with pytest.raises(RunError, match=r"on 127\.0\.0\.9, and no worker of the cluster is there any more"):
        control.fetch(UNKNOWN, "result-1.bin", "tcp://127.0.0.9:1", tmp_path / "result")


def test_an_empty_file_is_a_file(client: Client, control: ControllerClient, tmp_path: Path) -> None:
    agents(client)[0].files["empty"] = b""
    worker = control.hello()["workers"][0]["address"]
    assert control.fetch(UNKNOWN, "empty", worker, tmp_path / "empty") == 0
    assert (tmp_path / "empty").exists()


def test_a_file_that_is_not_there_leaves_nothing_behind(control: ControllerClient, tmp_path: Path) -> None:
    worker = control.hello()["workers"][0]["address"]
    with pytest.raises(RunError, match="no file"):
        control.fetch(UNKNOWN, "result-1.bin", worker, tmp_path / "result")
    assert not list(tmp_path.iterdir())


def test_content_travels_only_where_it_is_missing(
    client: Client, control: ControllerClient, tmp_path: Path
) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"x" * (DIRECT_CHUNK_BYTES + 5))
    small.write_bytes(b"y")
    first, second = agents(client)
    first.content["b" * 32] = b"y"
    seen: list[tuple[int, int]] = []
    sent = control.send({"a" * 32: large, "b" * 32: small}, progress=lambda *p: seen.append(p))
    assert sent == 2 * (DIRECT_CHUNK_BYTES + 5) + 1
    assert first.content == second.content == {"a" * 32: large.read_bytes(), "b" * 32: b"y"}
    assert len(first.calls("train_content_put")) == 2
    assert seen[-1] == (sent, sent)
    assert control.send({"a" * 32: large}) == 0


def test_workers_of_one_folder_get_one_copy_and_those_of_the_kernels_own_none(
    client: Client, control: ControllerClient, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    first, second = agents(client)
    first.folder = second.folder = "shared"

    assert control.missing(["a" * 32]) == {"a" * 32}
    assert control.send({"a" * 32: file}, folder="shared") == 0
    assert control.send({"a" * 32: file}, folder="another") == 10
    assert sorted([first.content, second.content], key=len) == [{}, {"a" * 32: b"x" * 10}]


def test_a_worker_that_the_kernel_cannot_reach_is_sent_to_through_the_scheduler(
    client: Client, control: ControllerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(client: Client, worker: str) -> bool:
        return False

    monkeypatch.setattr(sending, "_reaches", unreachable)
    file = tmp_path / "file"
    file.write_bytes(b"x" * (sending.RELAYED_CHUNK_BYTES + 5))

    assert control.send({"a" * 32: file}) == 2 * (sending.RELAYED_CHUNK_BYTES + 5)
    assert all(agent.content["a" * 32] == file.read_bytes() for agent in agents(client))
    assert [len(agent.calls("train_content_put")) for agent in agents(client)] == [2, 2]


def test_an_agents_own_failure_names_its_worker(control: ControllerClient, client: Client) -> None:
    worker = control.hello()["workers"][0]["address"]
    agent = next(a for a in agents(client) if a.worker.address == worker)

    def broken(keys: list[str]) -> None:
        raise OSError("disk is gone")

    agent.worker.handlers["train_content_missing"] = broken
    with pytest.raises(ClusterError, match=f"{worker} cannot do what it should.*disk is gone"):
        control.send({"a" * 32: Path(__file__)}, [worker])


def test_a_scheduler_that_was_started_anew_is_told_apart(client: Client) -> None:
    with pytest.raises(ClusterUnreachable, match="has no controller of jupyter_train"):
        ControllerClient(client).hello()


def test_a_closed_cluster_is_unreachable(client: Client, control: ControllerClient) -> None:
    client.close()
    with pytest.raises(ClusterUnreachable):
        control.hello()


def test_another_protocol_is_a_sentence(
    client: Client, control: ControllerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_train.control.controller.PROTOCOL", 2)
    with pytest.raises(EnvironmentMismatch, match="do not understand each other"):
        ensure(client, FakeAgent())


def test_agents_that_stay_silent_are_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_train.control.agents.ORDER_S", 0.01)

    class Mute(FakeAgent):
        def setup(self, worker: object) -> None:
            """Nothing that answers."""

    with pytest.raises(ClusterUnreachable, match="no agent answers on worker 0, 1"):
        ensure(client, Mute(), timeout_s=0.1)


def test_an_agent_that_cannot_start_says_why(client: Client) -> None:
    class Broken(FakeAgent):
        def setup(self, worker: object) -> None:
            raise OSError("no space for a zygote")

    with pytest.raises(ClusterError, match="no space for a zygote"):
        ensure(client, Broken())


def test_an_interrupt_ends_a_wait(control: ControllerClient, client: Client) -> None:
    main = threading.main_thread().ident
    assert main is not None
    agents(client)[0].script = agents(client)[1].script = "silent"
    run_id = control.submit(spec(1))["run_id"]
    # As in a kernel, also where these tests were started with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            control.events(run_id, 99, wait_s=30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert control.stop(run_id) in ("STOPPING", "CANCELLED")  # the latter where it was not placed yet
