"""Attempts that are lost, in a real scheduler with agents that have no processes."""

from __future__ import annotations

import asyncio

from jupyter_train.control.messages import RankHung
from jupyter_train.record import Event, EventKind, RunView
from tests.control.conftest import Cluster, with_cluster
from tests.control.fake_agent import FakeAgent, checkpoint


async def second_attempt(cluster: Cluster, run_id: str) -> RunView:
    """Wait until the ranks of the second attempt are in the cell."""
    while True:
        view = await cluster.until(run_id, "RUNNING", "FAILED")
        if view.attempt == 2:
            return view
        assert view.state != "FAILED"
        await asyncio.sleep(0.01)


def launched(cluster: Cluster, worker: int) -> list[dict[str, object]]:
    """The points from which the ranks on that worker were to begin."""
    return [call["spec"]["resume"] for call in cluster.agent(worker).calls("train_launch")]


async def told(cluster: Cluster, run_id: str, *, parts: int) -> list[Event]:
    """Wait until so many parts of checkpoints are on record."""
    while True:
        events = [e for e in await cluster.events(run_id) if e.kind is EventKind.CHECKPOINT]
        if len(events) >= parts:
            return events
        await asyncio.sleep(0.01)


@with_cluster(2)
async def test_a_killed_rank_is_launched_again_from_the_newest_checkpoint(cluster: Cluster) -> None:
    run_id = await cluster.submit(2, retries=1)
    await cluster.until(run_id, "RUNNING")
    for rank in (0, 1):
        cluster.agent(rank).send(run_id, checkpoint(run_id, 1, 1, rank=rank))
    cluster.agent(0).send(run_id, checkpoint(run_id, 2, 2, rank=0))
    await told(cluster, run_id, parts=3)
    cluster.agent(1).exit(run_id, "signal", signal=9)
    view = await second_attempt(cluster, run_id)
    first, second = launched(cluster, 1)
    assert first is None
    assert second is not None
    assert second == launched(cluster, 0)[1]
    assert second["files"] == ("checkpoint-1-1.pt", "checkpoint-1-1.1.pt")
    reason = "rank 1 was killed by signal 9; attempt 2 of 2 goes on from step 10 (epoch 0)"
    assert [past.reason for past in view.past] == [reason]
    assert view.remarks == (f"attempt 1: {reason}",)
    assert view.errors == {}
    assert [one.step for one in view.checkpoints] == [10]
    for rank in (0, 1):
        cluster.agent(rank).exit(run_id, attempt=2)
    assert (await cluster.end(run_id)).state == "SUCCEEDED"


@with_cluster(2)
async def test_a_run_waits_for_the_worker_that_takes_the_place_of_a_lost_one(cluster: Cluster) -> None:
    run_id = await cluster.submit(2, retries=1)
    await cluster.until(run_id, "RUNNING")
    cluster.agent(0).send(run_id, checkpoint(run_id, 1, 1, rank=0))
    await told(cluster, run_id, parts=1)
    cluster.agent(0).spooled = [checkpoint(run_id, 1, 1, rank=1)]
    behind = await cluster.submit(2)
    await cluster.lose_worker(1)
    waiting = await cluster.until(run_id, "RETRYING")
    while "needs 2 workers" not in waiting.reason:
        waiting = await cluster.view(run_id)
        await asyncio.sleep(0.01)
    assert waiting.reason.startswith("worker 1 on 127.0.0.1 was lost, and rank 1 with it; attempt 2 of 2")
    assert waiting.queue_place == 1
    await cluster.add_worker()
    await second_attempt(cluster, run_id)
    point = launched(cluster, 2)[0]
    assert point is not None
    assert point["step"] == 10, "what the lost rank had written down was read first"
    assert (await cluster.view(behind)).state == "PENDING"


@with_cluster(2, FakeAgent(obeys=True))
async def test_a_rank_that_hangs_is_ended_with_its_stacks_on_record(cluster: Cluster) -> None:
    run_id = await cluster.submit(2)
    await cluster.until(run_id, "RUNNING")
    dispatcher = cluster.controller._dispatcher
    assert dispatcher is not None
    dispatcher.feed(dispatcher.run(run_id), RankHung(attempt=1, rank=1, text="asleep"))
    view = await cluster.end(run_id)
    assert view.errors[1]["cause"] == "hung"
    assert view.errors[1]["text"].endswith("Thread 1 (main)")
    assert "asleep" in view.reason
    assert [c["mode"] for c in cluster.agent(1).calls("train_stop_ranks")] == ["fail"]
