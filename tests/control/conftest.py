"""A Dask cluster in this process's own event loop, with a controller and agents without processes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import dask
import pytest
from distributed import Scheduler, Worker
from distributed.protocol.pickle import dumps

from jupyter_train.control.controller import Controller
from jupyter_train.record import Event, EventKind, RunSpec, RunView, fold, new_run_id, unpack_event
from tests.control.fake_agent import FakeAgent

QUIET = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.comm.timeouts.connect": "5s",
    "distributed.worker.memory.pause": False,
    "distributed.admin.system-monitor.gil.enabled": False,
}


@pytest.fixture(autouse=True)
def quiet_dask() -> Iterator[None]:
    with dask.config.set(QUIET):
        yield


@dataclass(kw_only=True)
class Cluster:
    """What a test of the controller works with."""

    scheduler: Scheduler
    workers: list[Worker] = field(default_factory=list)

    @property
    def controller(self) -> Controller:
        plugin = self.scheduler.plugins["jupyter-train-controller"]
        assert isinstance(plugin, Controller)
        return plugin

    def agent(self, worker: int) -> FakeAgent:
        """The agent on worker ``worker``."""
        agent: FakeAgent = self.workers[worker].plugins["jupyter-train-agent"]
        return agent

    async def add_worker(self) -> Worker:
        name = len(self.workers)
        worker = await Worker(
            self.scheduler.address, nthreads=1, name=name, host="127.0.0.1", dashboard_address=None
        )
        self.workers.append(worker)
        return worker

    async def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Call the controller as a client does, over a real connection."""
        reply: dict[str, Any] = await getattr(self.scheduler.rpc(self.scheduler.address), op)(**arguments)
        return reply

    async def submit(self, ranks: int = 1, **more: Any) -> str:
        """Hand in a run; its id."""
        reply = await self.call("train_submit", spec=spec(ranks, **more).to_dict())
        run_id: str = reply["run_id"]
        return run_id

    async def events(self, run_id: str, after: int = 0) -> list[Event]:
        """All events of the run so far."""
        reply = await self.call("train_events", run_id=run_id, after=after, wait_s=0)
        return [unpack_event(data) for data in reply["events"]]

    async def view(self, run_id: str) -> RunView:
        return fold(await self.events(run_id))

    async def states(self, run_id: str) -> list[str]:
        return [e.payload["state"] for e in await self.events(run_id) if e.kind is EventKind.STATE]

    async def until(self, run_id: str, *states: str) -> RunView:
        """Wait until the run is in one of ``states``."""
        after, events = 0, []
        while True:
            reply = await self.call("train_events", run_id=run_id, after=after, wait_s=10)
            assert reply["events"], f"{run_id} has no news; it is {fold(events).state}"
            after = reply["last"]
            events += [unpack_event(data) for data in reply["events"]]
            view = fold(events)
            if view.state in states:
                return view

    async def until_event(self, run_id: str, kind: EventKind) -> None:
        """Wait until the run has an event of that kind."""
        after = 0
        while True:
            reply = await self.call("train_events", run_id=run_id, after=after, wait_s=10)
            assert reply["events"], f"{run_id} has no {kind}"
            after = reply["last"]
            if any(unpack_event(data).kind is kind for data in reply["events"]):
                return

    async def lose_worker(self, number: int) -> None:
        """Break the worker's connection to the scheduler, as its sudden death does."""
        self.workers[number].batched_stream.comm.abort()

    async def end(self, run_id: str) -> RunView:
        return await self.until(run_id, "SUCCEEDED", "FAILED", "CANCELLED")

    async def hello(self) -> dict[str, Any]:
        return await self.call("train_hello")


def spec(ranks: int = 1, **more: Any) -> RunSpec:
    return RunSpec(**{"run_id": new_run_id(), "name": "digits", "source": "pass\n", "ranks": ranks, **more})


@asynccontextmanager
async def cluster_of(workers: int, agent: FakeAgent | None = None) -> AsyncIterator[Cluster]:
    """A scheduler with a controller, and so many workers with agents that have spoken."""
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler:
        cluster = Cluster(scheduler=scheduler)
        await scheduler.register_scheduler_plugin(dumps(Controller()), idempotent=True)
        await scheduler.register_worker_plugin(
            None, dumps(agent or FakeAgent()), "jupyter-train-agent", idempotent=True
        )
        try:
            for _ in range(workers):
                await cluster.add_worker()
            while not all(w["agent"] for w in (await cluster.hello())["workers"]):
                await asyncio.sleep(0.005)
            yield cluster
        finally:
            await asyncio.gather(*(w.close(executor_wait=False) for w in cluster.workers))


def with_cluster(workers: int, agent: FakeAgent | None = None) -> Callable[..., Callable[..., None]]:
    """Run an async test in a cluster of so many workers."""

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        async def main(**fixtures: Any) -> None:
            async with cluster_of(workers, agent) as cluster:
                await asyncio.wait_for(test(cluster, **fixtures), 30)

        def run(**fixtures: Any) -> None:
            asyncio.run(main(**fixtures))

        # pytest asks for the fixtures that the test names after the cluster.
        given = list(inspect.signature(test).parameters.values())[1:]
        run.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return pytest.mark.cluster(run)

    return decorate
