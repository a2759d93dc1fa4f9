"""The controller in a real scheduler, with agents that have no processes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from unittest.mock import patch

import pytest
from distributed import Scheduler
from distributed.protocol.pickle import dumps

from jupyter_train.control.controller import Controller
from jupyter_train.control.spool import spool_path
from jupyter_train.errors import StoreError
from jupyter_train.home import private_folder
from jupyter_train.record import Event, EventKind, RunSpec, pack_event, unpack_event
from jupyter_train.store import JournalReader, JournalWriter
from tests.control.conftest import Cluster, spec, with_cluster
from tests.control.fake_agent import FakeAgent, error, event, metrics

# The ordinary way


@with_cluster(2, FakeAgent("done"))
async def test_a_run_goes_its_way(cluster: Cluster) -> None:
    run_id = await cluster.submit(2, environment={"TOKEN": "secret"}, params={"lr": 0.1})
    view = await cluster.end(run_id)
    assert await cluster.states(run_id) == ["PENDING", "STARTING", "RUNNING", "SUCCEEDED"]
    assert view.spec is not None
    assert dict(view.spec.params) == {"lr": 0.1}
    assert not view.spec.environment, "values of environment variables are never recorded"
    assert [(p["rank"], p["local_rank"]) for p in view.placement] == [(0, 0), (1, 1)]


@with_cluster(2)
async def test_ranks_are_launched_with_what_they_need(cluster: Cluster) -> None:
    run_id = await cluster.submit(2, environment={"HF_HOME": "/data"})
    await cluster.until(run_id, "RUNNING")
    (asked,) = cluster.agent(0).calls("train_rendezvous")
    assert asked == {"run_id": run_id, "attempt": 1, "host_visible": False}
    (launch,) = cluster.agent(1).calls("train_launch")
    assert launch.pop("spec")["environment"] == {"HF_HOME": "/data"}
    assert launch == {
        "run_id": run_id,
        "attempt": 1,
        "ranks": ((1, 1),),
        "world_size": 2,
        "local_world_size": 2,
        "master_host": "127.0.0.1",
        "master_port": 4242,
    }


@with_cluster(1)
async def test_a_submission_sent_twice_is_one_run(cluster: Cluster) -> None:
    asked = spec(1).to_dict()
    replies = [await cluster.call("train_submit", spec=asked) for _ in range(2)]
    assert replies[0]["run_id"] == replies[1]["run_id"]
    await cluster.until(replies[0]["run_id"], "RUNNING")
    assert len(cluster.agent(0).calls("train_launch")) == 1


@with_cluster(1)
async def test_more_ranks_than_workers_are_refused(cluster: Cluster) -> None:
    reply = await cluster.call("train_submit", spec=spec(2).to_dict())
    assert reply["error"]["type"] == "NotEnoughWorkers"
    assert not (await cluster.hello())["runs"]


@with_cluster(1)
async def test_nonsense_is_refused_with_a_sentence(cluster: Cluster) -> None:
    for wrong in ({"run_id": "../../etc"}, {"ranks": 0}):
        reply = await cluster.call("train_submit", spec=spec(1).to_dict() | wrong)
        assert reply["error"]["type"] == "ValueError"
    assert "specification" in (await cluster.call("train_submit", spec={"run_id": "x"}))["error"]["message"]
    for op in ("train_events", "train_stop"):
        assert (await cluster.call(op, run_id="20260101-000000-000000"))["error"]["type"] == "RunNotFound"


# Events


@with_cluster(1)
async def test_events_are_numbered_without_a_break(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    cluster.agent(0).send(run_id, *(event(run_id, n) for n in range(1, 6)))
    cluster.agent(0).exit(run_id)
    await cluster.end(run_id)
    events = await cluster.events(run_id)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.rank_seq for e in events if e.kind is EventKind.LOG] == [1, 2, 3, 4, 5]
    assert events[-1].payload["state"] == "SUCCEEDED"


@with_cluster(1)
async def test_a_copy_of_an_event_is_left_out(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    agent = cluster.agent(0)
    agent.send(run_id, event(run_id, 1), event(run_id, 2))
    agent.send(run_id, event(run_id, 2), event(run_id, 3))
    agent.send(run_id, event(run_id, 0), event(run_id, 0))
    agent.exit(run_id)
    await cluster.end(run_id)
    logs = [e.rank_seq for e in await cluster.events(run_id) if e.kind is EventKind.LOG]
    assert logs == [1, 2, 3, 0, 0], "what an agent says has no number of its own and is never a copy"


@with_cluster(1)
async def test_what_a_rank_may_not_tell_is_left_out(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    state = event(run_id, 1, kind=EventKind.STATE, payload={"state": "SUCCEEDED"})
    other = event("20260101-000000-000000", 1)
    cluster.agent(0).send(
        run_id, b"", b"\x00" * 20, state, other, event(run_id, 1, rank=7), event(run_id, 1, attempt=5)
    )
    cluster.agent(0).send("20260101-000000-000000", other)
    cluster.agent(0).worker.batched_send({"op": "train-rank", "run_id": run_id, "cause": 3})
    cluster.agent(0).worker.batched_send({"op": "train-events", "run_id": run_id, "events": 3})
    cluster.agent(0).send(run_id, event(run_id, 1))
    cluster.agent(0).exit(run_id)
    await cluster.end(run_id)
    events = await cluster.events(run_id)
    assert [e.kind for e in events if e.rank is not None] == [EventKind.LOG]
    assert len(cluster.scheduler.workers) == 1, "Dask drops a worker over a handler that raises"


@with_cluster(1)
async def test_a_reader_is_woken_by_an_event(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    view = await cluster.until(run_id, "RUNNING")
    waiting = asyncio.create_task(cluster.call("train_events", run_id=run_id, after=view.seq, wait_s=20))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    cluster.agent(0).send(run_id, event(run_id, 1))
    reply = await asyncio.wait_for(waiting, 5)
    assert (len(reply["events"]), reply["last"], reply["terminal"]) == (1, view.seq + 1, False)


@with_cluster(1)
async def test_a_reader_that_waits_in_vain_gets_nothing(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    view = await cluster.until(run_id, "RUNNING")
    reply = await cluster.call("train_events", run_id=run_id, after=view.seq, wait_s=0.05)
    assert reply == {"events": (), "last": view.seq, "terminal": False}


@with_cluster(1, FakeAgent("done"))
async def test_the_end_is_said_with_the_last_event(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    view = await cluster.end(run_id)
    reply = await cluster.call("train_events", run_id=run_id, after=0, wait_s=0)
    assert (reply["last"], reply["terminal"]) == (view.seq, True)
    reply = await cluster.call("train_events", run_id=run_id, after=view.seq, wait_s=20)
    assert reply == {"events": (), "last": view.seq, "terminal": True}


@with_cluster(1)
async def test_what_memory_no_longer_holds_comes_from_the_journal(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    log = cluster.controller._dispatcher.runs[run_id].log  # type: ignore[union-attr]
    log._keep_bytes = 10_000
    cluster.agent(0).send(run_id, *(metrics(run_id, n) for n in range(1, 101)))
    cluster.agent(0).exit(run_id)
    view = await cluster.end(run_id)
    assert log.first > 50
    events = await cluster.events(run_id)
    while events[-1].seq < view.seq:
        events += await cluster.events(run_id, events[-1].seq)
    assert [e.seq for e in events] == list(range(1, view.seq + 1))


@with_cluster(1)
async def test_the_journal_has_every_event(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    cluster.agent(0).send(run_id, *(metrics(run_id, n) for n in range(1, 51)))
    cluster.agent(0).exit(run_id)
    view = await cluster.end(run_id)
    path = Path((await cluster.hello())["journal"])
    await cluster.scheduler.close()
    reader = JournalReader(path)
    assert [e.seq for e in reader.events(run_id)] == list(range(1, view.seq + 1))
    summary = reader.summary(run_id)
    assert summary is not None
    assert (summary.state, summary.name) == ("SUCCEEDED", "digits")


# Failures


@with_cluster(2)
async def test_a_journal_that_cannot_be_written_is_said_once_in_the_run(cluster: Cluster) -> None:
    run_id = await cluster.submit(2)
    await cluster.until(run_id, "RUNNING")
    trouble = "the journal cannot be written (disk full)"
    with patch.object(JournalWriter, "trouble", trouble):
        for number in (1, 2):
            cluster.agent(0).send(run_id, metrics(run_id, number))
        for rank in (0, 1):
            cluster.agent(rank).exit(run_id, "done")
        await cluster.end(run_id)
    events = await cluster.events(run_id)
    remarks = [e.payload["text"] for e in events if e.payload.get("stream") == "remark"]
    assert remarks == [trouble]
    assert events[-1].payload["state"] == "SUCCEEDED"


@with_cluster(3)
async def test_a_failed_rank_ends_the_others_at_once(cluster: Cluster) -> None:
    run_id = await cluster.submit(3)
    await cluster.until(run_id, "RUNNING")
    start = time.monotonic()
    agent = cluster.agent(1)
    agent.send(run_id, error(run_id, 1, rank=1))
    agent.exit(run_id, "error")
    view = await cluster.end(run_id)
    assert time.monotonic() - start < 5  # the others are not waited for, which would be 8 s
    assert (view.state, view.reason) == ("FAILED", "ValueError: bad 1")
    assert not agent.calls("train_stop_ranks")
    assert [c["mode"] for c in cluster.agent(0).calls("train_stop_ranks")] == ["fail"]
    assert view.errors[1]["message"] == "bad 1"


@with_cluster(2)
async def test_the_consequence_of_a_failure_is_not_its_reason(cluster: Cluster) -> None:
    run_id = await cluster.submit(2)
    await cluster.until(run_id, "RUNNING")
    cluster.agent(1).obeys = False
    cluster.agent(0).send(run_id, error(run_id, 1, rank=0, secondary=True))
    await cluster.until_event(run_id, EventKind.ERROR)
    cluster.agent(1).send(run_id, error(run_id, 1, rank=1))
    cluster.agent(1).exit(run_id, "error")
    cluster.agent(0).exit(run_id, "error")
    assert (await cluster.end(run_id)).reason == "ValueError: bad 1"


@with_cluster(2)
async def test_a_rank_killed_by_a_signal_is_reported_in_its_stead(cluster: Cluster) -> None:
    run_id = await cluster.submit(2)
    await cluster.until(run_id, "RUNNING")
    cluster.agent(1).exit(run_id, "signal", signal=9)
    view = await cluster.end(run_id)
    assert (view.errors[1]["type"], view.errors[1]["cause"]) == ("RankLost", "signal")
    assert "SIGKILL" in view.reason


@with_cluster(2, FakeAgent("refuse"))
async def test_a_launch_that_is_refused_fails_the_run(cluster: Cluster) -> None:
    view = await cluster.end(await cluster.submit(2))
    assert (view.state, view.reason) == ("FAILED", "OSError: no memory for another process")
    assert (await cluster.hello())["workers"][0]["run"] is None


@with_cluster(2)
async def test_a_worker_without_an_agent_any_more_fails_the_launch(cluster: Cluster) -> None:
    del cluster.workers[0].handlers["train_rendezvous"]
    view = await cluster.end(await cluster.submit(2))
    assert "has no agent of jupyter_train" in view.reason


# Workers that come and go


@with_cluster(2)
async def test_a_lost_worker_ends_the_run_and_names_it(cluster: Cluster) -> None:
    run_id = await cluster.submit(2)
    await cluster.until(run_id, "RUNNING")
    start = time.monotonic()
    await cluster.lose_worker(1)
    view = await cluster.end(run_id)
    assert time.monotonic() - start < 5
    assert view.reason.startswith("RankLost: rank 1 is lost, because worker 1 on 127.0.0.1")
    assert view.errors[1]["cause"] == "lost"
    assert [c["mode"] for c in cluster.agent(0).calls("train_stop_ranks")] == ["fail"]


@with_cluster(2)
async def test_the_last_events_of_a_lost_rank_are_found_on_disk(cluster: Cluster) -> None:
    run_id = await cluster.submit(2)
    await cluster.until(run_id, "RUNNING")
    lines = [event(run_id, n, rank=1) for n in range(1, 8)]
    path = spool_path(run_id, 1, 1)
    private_folder(path.parent)
    path.write_bytes(b"".join(lines)[:-5])
    cluster.agent(1).send(run_id, *lines[:3])
    await cluster.until_event(run_id, EventKind.LOG)
    await cluster.lose_worker(1)
    view = await cluster.end(run_id)
    events = await cluster.events(run_id)
    assert [e.rank_seq for e in events if e.kind is EventKind.LOG] == [1, 2, 3, 4, 5, 6]
    assert events[-1].seq == view.seq
    assert events[-1].kind is EventKind.STATE, "the end is the last word"


@with_cluster(2)
async def test_the_last_events_of_a_lost_rank_are_fetched_from_its_host(cluster: Cluster) -> None:
    run_id = await cluster.submit(2)
    await cluster.until(run_id, "RUNNING")
    cluster.agent(0).spooled = [event(run_id, n, rank=1) for n in (1, 2)]
    await cluster.lose_worker(1)
    await cluster.end(run_id)
    logs = [e for e in await cluster.events(run_id) if e.kind is EventKind.LOG]
    assert [(e.rank, e.rank_seq) for e in logs] == [(1, 1), (1, 2)]


@with_cluster(1)
async def test_a_waiting_run_starts_when_a_worker_comes(cluster: Cluster) -> None:
    first, second = await cluster.submit(), await cluster.submit()
    assert (await cluster.states(second))[-1] == "PENDING"
    await cluster.add_worker()
    await cluster.until(second, "RUNNING")
    assert (await cluster.states(first))[-1] == "RUNNING"


@with_cluster(0)
async def test_an_agent_that_nobody_heard_of_is_found(cluster: Cluster) -> None:
    cluster.scheduler.worker_plugins["jupyter-train-agent"] = dumps(FakeAgent(speaks=False))
    await cluster.add_worker()
    while not (await cluster.hello())["workers"][0]["agent"]:
        await asyncio.sleep(0.01)
    await cluster.until(await cluster.submit(), "RUNNING")


@with_cluster(2)
async def test_workers_with_ranks_are_not_taken_away(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    view = await cluster.until(run_id, "RUNNING")
    used = view.placement[0]["worker"]
    assert used not in cluster.scheduler.workers_to_close(n=2)
    assert len(cluster.scheduler.workers_to_close(n=2)) == 1
    waiting = await cluster.submit(2)
    assert not cluster.scheduler.workers_to_close(n=2), "a run waits for these workers"
    await cluster.call("train_stop", run_id=waiting)
    cluster.agent(int(cluster.scheduler.workers[used].name)).exit(run_id)
    await cluster.end(run_id)
    assert len(cluster.scheduler.workers_to_close(n=2)) == 2


# The queue


@with_cluster(2)
async def test_busy_workers_mean_waiting_in_order(cluster: Cluster) -> None:
    first, second, third = [await cluster.submit(2) for _ in range(3)]
    await cluster.until(first, "RUNNING")
    last = (await cluster.events(third))[-1].payload
    assert (last["state"], last["queue_place"]) == ("PENDING", 2)
    assert last["reason"] == "number 2 in the queue: needs 2 workers"
    await cluster.call("train_stop", run_id=second)
    last = (await cluster.events(third))[-1].payload
    assert (last["queue_place"], last["reason"]) == (1, "first in the queue: needs 2 workers, 0 of 2 free")
    for agent in map(cluster.agent, (0, 1)):
        agent.exit(first)
    await cluster.until(third, "RUNNING")
    assert (await cluster.view(second)).state == "CANCELLED"


@with_cluster(4)
async def test_a_small_run_overtakes_a_large_one_that_it_does_not_delay(cluster: Cluster) -> None:
    running, large, small = [await cluster.submit(ranks) for ranks in (2, 3, 1)]
    await cluster.until(small, "RUNNING")
    assert (await cluster.events(large))[-1].payload["reason"] == (
        "first in the queue: needs 3 workers, 1 of 4 free"
    )
    for agent in map(cluster.agent, (0, 1)):
        agent.exit(running)
    await cluster.until(large, "RUNNING")
    assert (await cluster.view(small)).state == "RUNNING"


@with_cluster(3)
async def test_a_run_that_waits_for_a_lost_worker_keeps_its_turn(cluster: Cluster) -> None:
    running, large = [await cluster.submit(ranks) for ranks in (1, 3)]
    await cluster.until(running, "RUNNING")
    await cluster.lose_worker(2)
    small = await cluster.submit(1)
    while len((await cluster.hello())["workers"]) > 2:
        await asyncio.sleep(0.005)
    assert (await cluster.view(small)).state == "PENDING"
    await cluster.add_worker()
    cluster.agent(0).exit(running)
    await cluster.until(large, "RUNNING")


# Stops


@with_cluster(2)
async def test_a_stop_ends_the_ranks_gently(cluster: Cluster) -> None:
    run_id = await cluster.submit(2)
    await cluster.until(run_id, "RUNNING")
    assert await cluster.call("train_stop", run_id=run_id, force=False, reason="interrupted") == {
        "state": "STOPPING"
    }
    view = await cluster.end(run_id)
    assert (view.state, view.reason) == ("CANCELLED", "interrupted")
    assert cluster.agent(0).calls("train_stop_ranks")[-1]["mode"] == "stop"
    assert await cluster.call("train_stop", run_id=run_id) == {"state": "CANCELLED"}


@with_cluster(1)
async def test_a_stop_that_overtakes_its_submission_holds(cluster: Cluster) -> None:
    asked = spec(1)
    reply = await cluster.call("train_stop", run_id=asked.run_id, force=True, reason="interrupted")
    assert reply["error"]["type"] == "RunNotFound"
    await cluster.call("train_submit", spec=asked.to_dict())
    assert (await cluster.end(asked.run_id)).state == "CANCELLED"
    assert not cluster.agent(0).calls("train_rendezvous")


@with_cluster(1, FakeAgent("hang"))
async def test_a_stop_while_starting_does_not_wait_for_the_launch(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_train.control.machine.START_NET_S", 0.1)
    run_id = await cluster.submit()
    await cluster.until(run_id, "STARTING")
    await cluster.call("train_stop", run_id=run_id)
    assert (await cluster.end(run_id)).state == "CANCELLED"


@with_cluster(1)
async def test_an_agent_that_does_not_answer_gets_no_other_rank_until_it_does(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_train.control.ending.KILL_NET_S", 0.05)
    monkeypatch.setattr("jupyter_train.control.agents.ORDER_S", 0.05)
    monkeypatch.setattr("jupyter_train.control.errands.RETRY_S", 0.05)
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    stuck = asyncio.Event()

    async def never(**_: object) -> None:
        await stuck.wait()

    answers = cluster.workers[0].handlers["train_stop_ranks"]
    cluster.workers[0].handlers["train_stop_ranks"] = never
    await cluster.call("train_stop", run_id=run_id, force=True)
    assert (await cluster.end(run_id)).state == "CANCELLED"
    following = await cluster.submit()
    await asyncio.sleep(0.1)
    assert (await cluster.states(following))[-1] == "PENDING"
    cluster.workers[0].handlers["train_stop_ranks"] = answers
    await cluster.until(following, "RUNNING")
    stuck.set()


@with_cluster(1)
async def test_the_time_allowed_ends_a_run_as_failed(cluster: Cluster) -> None:
    view = await cluster.end(await cluster.submit(timeout_s=0.1))
    assert (view.state, view.errors[-1]["type"]) == ("FAILED", "RunTimeout")
    assert view.reason == "RunTimeout: the run took longer than the 0.1 s that --timeout allows"


# The controller itself


@with_cluster(1)
async def test_a_second_kernel_never_replaces_the_controller(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    before = await cluster.hello()
    await asyncio.gather(
        *(cluster.scheduler.register_scheduler_plugin(dumps(Controller()), idempotent=True) for _ in range(3))
    )
    after = await cluster.hello()
    assert (after["controller"], after["journal"]) == (before["controller"], before["journal"])
    assert [r["run_id"] for r in after["runs"]] == [run_id]


@pytest.mark.cluster
def test_two_kernels_that_come_at_once_get_one_controller() -> None:
    async def main() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler:
            await asyncio.gather(
                *(scheduler.register_scheduler_plugin(dumps(Controller()), idempotent=True) for _ in range(3))
            )
            plugin = scheduler.plugins["jupyter-train-controller"]
            assert plugin.id == (await plugin.train_hello())["controller"]

    asyncio.run(main())


@pytest.mark.cluster
def test_a_journal_that_cannot_be_made_is_told_and_leaves_nothing_behind(home: Path) -> None:
    async def main() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler:
            (home / "journals").write_text("in the way")
            with pytest.raises(StoreError, match="journals"):
                await scheduler.register_scheduler_plugin(dumps(Controller()), idempotent=True)
            assert "train_hello" not in scheduler.handlers
            (home / "journals").unlink()
            await scheduler.register_scheduler_plugin(dumps(Controller()), idempotent=True)
            assert (await scheduler.plugins["jupyter-train-controller"].train_hello())["protocol"] == 1

    asyncio.run(main())


@with_cluster(2)
async def test_hello_tells_what_is_going_on(cluster: Cluster, home: Path) -> None:
    run_id = await cluster.submit(1, name="digits")
    await cluster.until(run_id, "RUNNING")
    hello = await cluster.hello()
    assert (hello["protocol"], hello["home"], hello["clients"]) == (1, str(home), 0)
    assert Path(hello["journal"]) == home / "journals" / f"{hello['controller']}.sqlite"
    assert hello["runs"] == ({"run_id": run_id, "state": "RUNNING", "name": "digits"},)
    assert sorted(w["run"] or "" for w in hello["workers"]) == ["", run_id]
    assert all(w["agent"] and w["ready"] and w["host"] == "127.0.0.1" for w in hello["workers"])
    assert hello["idle_since"] is None
    json.dumps(hello)


@with_cluster(1, FakeAgent("done"))
async def test_idleness_counts_from_the_last_run_or_client(cluster: Cluster) -> None:
    from distributed import Client

    async def connect(name: str) -> Client:
        return await Client(cluster.scheduler.address, asynchronous=True, name=name, set_as_default=False)

    async with await connect("jupyter-train-supervisor-1"), await connect("worker"):
        hello = await cluster.hello()
        assert hello["clients"] == 0
        assert hello["idle_since"] > 0
        before = time.monotonic()
        async with await connect("Client-jupyter-train"):
            hello = await cluster.hello()
            assert (hello["clients"], hello["idle_since"]) == (1, None)
        while (idle_s := (await cluster.hello())["idle_since"]) is None:
            await asyncio.sleep(0.01)
        assert idle_s <= time.monotonic() - before
        before = time.monotonic()
        await cluster.end(await cluster.submit())
        assert (await cluster.hello())["idle_since"] <= time.monotonic() - before


@with_cluster(1)
async def test_dasks_idle_time_out_never_takes_a_scheduler_with_runs(cluster: Cluster) -> None:
    await cluster.until(await cluster.submit(), "RUNNING")
    cluster.scheduler.idle_since = 1.0  # as Dask sets it where no task runs
    async with asyncio.timeout(5):
        while cluster.scheduler.idle_since is not None:
            await asyncio.sleep(0.01)


@with_cluster(2)
async def test_closing_the_scheduler_ends_the_runs_in_the_journal(cluster: Cluster) -> None:
    running, waiting = await cluster.submit(2), await cluster.submit(2)
    await cluster.until(running, "RUNNING")
    path = Path((await cluster.hello())["journal"])
    await cluster.scheduler.close()
    ends = {s.run_id: (s.state, s.reason) for s in JournalReader(path).summaries()}
    assert ends == dict.fromkeys((running, waiting), ("CANCELLED", "the cluster was stopped"))


@with_cluster(1)
async def test_a_flood_of_events_leaves_the_loop_alive(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    view = await cluster.until(run_id, "RUNNING")
    packed = [metrics(run_id, n) for n in range(1, 5001)]
    turns, done = 0, False

    async def count_turns() -> None:
        nonlocal turns
        while not done:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.create_task(count_turns())
    await cluster.controller._on_events(worker="", run_id=run_id, events=packed)
    done = True
    await counter
    assert cluster.controller._dispatcher.runs[run_id].log.last == view.seq + 5000  # type: ignore[union-attr]
    assert turns > 10, "others had their turn in between"


def test_the_controller_has_no_state_before_it_starts() -> None:
    assert len(dumps(Controller())) < 500


def test_an_event_gets_its_number_in_the_bytes_it_came_in() -> None:
    from jupyter_train.control.eventlog import EventLog, stamp

    data = metrics("20260101-000000-abcdef", 3)
    log = EventLog("20260101-000000-abcdef")
    log.last = 1233
    new = log.add([(unpack_event(data), data)])
    assert new.packed[0] == pack_event(new.events[0])
    assert unpack_event(new.packed[0]).seq == 1234
    assert stamp(b"", new.events[0]) is None
    assert stamp(new.packed[0], new.events[0]) is None, "it has a number"


def test_a_log_that_was_forgotten_says_so() -> None:
    from jupyter_train.control.eventlog import EventLog

    def one(n: int) -> tuple[Event, None]:
        return unpack_event(event("20260101-000000-abcdef", n)), None

    log = EventLog("20260101-000000-abcdef", keep_bytes=1000)
    log.add([one(n) for n in range(1, 4)])
    assert len(log.after(1, at_most_bytes=10**6) or ()) == 2
    assert len(log.after(0, at_most_bytes=1) or ()) == 1, "one at least, or a reader would never go on"
    log.forget()
    assert log.after(1, at_most_bytes=10**6) is None
    assert log.after(3, at_most_bytes=10**6) == []
    assert log.last == 3


def test_of_a_run_that_ended_long_ago_the_controller_keeps_only_that_it_was_here() -> None:
    from jupyter_train.control.live import LiveRun

    spec = RunSpec(
        run_id="20260101-000000-abcdef", name="old", source="x" * 10**6, ranks=2, environment={"A": "b"}
    )
    run = LiveRun(spec, lambda: 0.0)
    run.forget()
    assert run.spec == RunSpec(run_id=spec.run_id, name="old", source="", ranks=2)
