"""What readers have of a controller's journal, and how long its cluster stays for them."""

from __future__ import annotations

import time
from typing import Any

import dask
import pytest

from jupyter_train.control import readers
from jupyter_train.control.readers import unread_timeout_s
from jupyter_train.record import unpack_event
from tests.control.conftest import Cluster, with_cluster
from tests.control.fake_agent import FakeAgent, event


async def told(cluster: Cluster, after: dict[str, int], **more: Any) -> dict[str, list[int]]:
    reply = await cluster.call("train_journal", after=after, **more)
    return {run_id: [unpack_event(e).seq for e in events] for run_id, events in reply["runs"].items()}


@with_cluster(1, FakeAgent("done"))
async def test_a_reader_gets_what_it_lacks_of_every_run(cluster: Cluster) -> None:
    one, two = [await cluster.submit() for _ in range(2)]
    for run_id in (one, two):
        await cluster.end(run_id)
    lasts = {run_id: len(await cluster.events(run_id)) for run_id in (one, two)}
    assert await told(cluster, {}) == {run_id: list(range(1, last + 1)) for run_id, last in lasts.items()}
    assert await told(cluster, {one: lasts[one] - 1, two: lasts[two]}) == {one: [lasts[one]]}
    assert await told(cluster, lasts) == {}
    assert await told(cluster, {one: 2**62, two: 2**62}) == {}


@with_cluster(1)
async def test_the_reply_says_who_writes_and_whether_anything_goes_on(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    reply = await cluster.call("train_journal", after={})
    assert reply["active"]
    assert reply["mark"]["controller"] == cluster.controller.id
    cluster.agent(0).exit(run_id)
    await cluster.end(run_id)
    assert not (await cluster.call("train_journal", after={}))["active"]


@with_cluster(1)
async def test_much_comes_in_pieces(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "REPLY_BYTES", 100)
        other = await cluster.submit()
        cluster.agent(0).send(run_id, *(event(run_id, n) for n in range(1, 6)))
        cluster.agent(0).exit(run_id)
        await cluster.until(other, "RUNNING")
        cluster.agent(0).exit(other)
        await cluster.end(other)
        has: dict[str, int] = {}
        pieces = 0
        while new := await told(cluster, has):
            assert len(new) == 1, "a piece that is full ends with the run that filled it"
            has |= {run: seqs[-1] for run, seqs in new.items()}
            pieces += 1
    assert has == {run: len(await cluster.events(run)) for run in (run_id, other)}
    assert pieces == 2


@with_cluster(1, FakeAgent("done"))
async def test_an_ended_run_is_unread_until_all_of_it_is_on_somebodys_disk(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.end(run_id)
    last = len(await cluster.events(run_id))
    assert (await cluster.hello())["unread"] == 1, "to follow a run is not to keep it"
    await told(cluster, {run_id: last - 1})
    assert (await cluster.hello())["unread"] == 1
    await told(cluster, {run_id: last})
    assert (await cluster.hello())["unread"] == 0


@with_cluster(1, FakeAgent("done"))
async def test_who_reads_the_journal_itself_needs_no_copy(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.end(run_id)
    assert await told(cluster, {}, reads_file=True) == {}
    assert (await cluster.hello())["unread"] == 0


@with_cluster(1, FakeAgent("done"))
async def test_the_scheduler_is_not_idle_while_a_run_is_unread(cluster: Cluster) -> None:
    run_id = await cluster.submit()
    await cluster.end(run_id)
    for awake, after in ((True, {}), (False, {run_id: 2**62})):
        await told(cluster, after)
        cluster.scheduler.idle_since = 5.0
        cluster.controller._stay_awake()
        assert (cluster.scheduler.idle_since is None) is awake


@with_cluster(1, FakeAgent("done"))
async def test_nobody_is_waited_for_without_end(cluster: Cluster) -> None:
    await cluster.end(await cluster.submit())
    later = time.monotonic() + unread_timeout_s() + 1
    cluster.controller._readers._clock = lambda: later
    cluster.scheduler.idle_since = 5.0
    cluster.controller._stay_awake()
    assert cluster.scheduler.idle_since == 5.0
    assert (await cluster.hello())["unread"] == 1, "it is unread all the same"


@pytest.mark.parametrize(("given", "seconds"), [(None, 600.0), ("2 hours", 7200.0), (5, 5.0), ("0s", 0.0)])
def test_how_long_is_a_setting(given: object, seconds: float) -> None:
    with dask.config.set({"jupyter-train.unread-timeout": given}):
        assert unread_timeout_s() == seconds
