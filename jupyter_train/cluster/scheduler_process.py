"""What the scheduler process of a local cluster runs: Dask's scheduler, our controller, and the
counter at which kernels ask the supervisor for more workers or for the end.

To the supervisor: ``address``, ``status``, ``scale``, ``stop``, ``retiring``, ``kept``.
From it: ``shrink``, ``end``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
from distributed import SchedulerPlugin, Status
from distributed.protocol.pickle import dumps

from jupyter_train.cluster.channel import Channel
from jupyter_train.cluster.children import when_told_to_end
from jupyter_train.cluster.loopback import CONFIG, HOST, Scheduler
from jupyter_train.cluster.policy import MAX_WORKERS, number_of
from jupyter_train.cluster.security import cluster_security
from jupyter_train.control.controller import Controller
from jupyter_train.runtime.agent import Agent

STATUS_EVERY_S = 0.5


def run(channel: Channel, folder: Path) -> int:
    """The whole life of the process; gives its exit code."""
    dask.config.set({**CONFIG, "temporary-directory": str(folder / "scratch")})
    return asyncio.run(_serve(channel, folder))


async def _serve(channel: Channel, folder: Path) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    when_told_to_end(lambda: _set(loop, told))
    scheduler: Any = Scheduler(
        host=HOST, port=0, protocol="tls", security=cluster_security(folder), dashboard=False
    )
    await scheduler
    # Before any worker comes, so that each starts its zygote as soon as it is there.
    await scheduler.register_scheduler_plugin(Controller(), name="jupyter-train-controller", idempotent=True)
    await scheduler.register_worker_plugin(
        None, plugin=dumps(Agent()), name="jupyter-train-agent", idempotent=True
    )
    counter = Counter(scheduler, channel)
    scheduler.add_plugin(counter, name=counter.name)
    channel.send(op="address", address=scheduler.address)
    ends = [
        asyncio.create_task(counter.listen(), name="supervisor's orders"),
        asyncio.create_task(counter.report(), name="status for the supervisor"),
        asyncio.create_task(scheduler.finished(), name="scheduler finished"),
        asyncio.create_task(told.wait(), name="told to end"),
    ]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if scheduler.status is Status.running:
        for task in ends[:2]:
            if task.done():
                task.result()  # raises what went wrong
    await scheduler.close(reason=counter.reason)  # by itself the controller ends the runs first
    os._exit(0)  # not through asyncio's own end: it would wait for threads


class Counter(SchedulerPlugin):  # type: ignore[misc]
    """Speaks for the supervisor, inside the scheduler's event loop."""

    name = "jupyter-train-cluster"

    def __init__(self, scheduler: Any, channel: Channel) -> None:
        self._scheduler = scheduler
        self._channel = channel
        self._changed = asyncio.Event()
        self.reason = "told to end"
        scheduler.handlers["cluster_scale"] = self.scale
        scheduler.handlers["cluster_stop"] = self.stop

    # -- what kernels may ask, over Dask

    def scale(self, n: int) -> dict[str, Any]:
        """Make it ``n`` workers. Answers at once; they come and go afterwards."""
        if not isinstance(n, int) or not 1 <= n <= MAX_WORKERS:
            return {"error": f"a local cluster has 1 to {MAX_WORKERS} workers, not {n}"}
        self._channel.send(op="scale", n=n)
        return {"workers": n}

    def stop(self, reason: str = "") -> dict[str, Any]:
        """End the cluster, with its runs."""
        self._channel.send(op="stop", reason=reason or "stopped")
        return {}

    # -- what the supervisor is told

    async def report(self) -> None:
        """Tell it how things are, whenever that changes."""
        last: dict[str, Any] = {}
        while True:
            self._changed.clear()
            status = await self._status()
            if status != last and self._channel.send(op="status", **status):
                last = status
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), STATUS_EVERY_S)

    async def _status(self) -> dict[str, Any]:
        hello = await self._hello()
        workers = self._scheduler.workers.values()
        return {
            "clients": hello["clients"],
            "runs": len(hello["runs"]),
            "busy": any(worker.processing for worker in workers),
            "workers": sorted(str(worker.name) for worker in workers),
        }

    def add_worker(self, *_args: Any, **_kwargs: Any) -> None:
        """Called by the scheduler: report at once."""
        self._changed.set()

    def remove_worker(self, *_args: Any, **_kwargs: Any) -> None:
        """Called by the scheduler: report at once."""
        self._changed.set()

    # -- what the supervisor orders

    async def listen(self) -> None:
        """Carry out orders, until the last one or the supervisor's end."""
        while (messages := await self._channel.messages()) is not None:
            for message in messages:
                if message["op"] == "shrink":
                    await self._shrink(int(message["excess"]))
                elif message["op"] == "end":
                    self.reason = str(message["reason"])
                    return
        os.killpg(os.getpgid(0), 9)  # where no signal tells of the supervisor's death

    async def _shrink(self, excess: int) -> None:
        """Take out idle workers, the youngest first; the busy ones have their turn when their runs end."""
        hello = await self._hello()
        with_ranks = {worker["address"] for worker in hello["workers"] if worker["run"]}
        idle = [
            worker
            for worker in self._scheduler.workers.values()
            if worker.address not in with_ranks and not worker.processing
        ]
        idle.sort(key=lambda worker: number_of(worker.name), reverse=True)
        names = [str(worker.name) for worker in idle[:excess]]
        self._channel.send(op="retiring", names=names)
        if names:
            await self._scheduler.retire_workers(
                names=names, close_workers=True, remove=True, stimulus_id=f"scale-down-{time.time()}"
            )
        still = {str(worker.name) for worker in self._scheduler.workers.values()}
        self._channel.send(op="kept", names=[name for name in names if name in still])

    async def _hello(self) -> Mapping[str, Any]:
        return dict(await self._scheduler.handlers["train_hello"]())


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)
