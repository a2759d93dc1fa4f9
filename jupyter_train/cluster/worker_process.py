"""What a worker process of a local cluster runs: one Dask worker, until it is told to end."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import distributed.worker  # noqa: F401  imported before the fork

from jupyter_train.cluster.channel import Channel
from jupyter_train.cluster.children import when_told_to_end
from jupyter_train.cluster.loopback import CONFIG, HOST, Worker
from jupyter_train.cluster.security import cluster_security
from jupyter_train.runtime.stem import STEM

REGISTER_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker of a local cluster is started with."""

    name: str
    scheduler: str
    threads: int
    folder: Path  #: of the cluster
    stem: str = ""  #: name of the host's stem of zygotes; empty: there is none


def run(channel: Channel, settings: WorkerSettings) -> int:
    """The whole life of the process; gives its exit code."""
    if settings.stem:
        os.environ[STEM] = settings.stem
    dask.config.set({**CONFIG, "temporary-directory": str(settings.folder / "scratch")})
    return asyncio.run(_serve(channel, settings))


async def _serve(channel: Channel, settings: WorkerSettings) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    when_told_to_end(lambda: _set(loop, told))
    worker: Any = Worker(
        settings.scheduler,
        name=settings.name,
        nthreads=settings.threads,
        memory_limit=0,  # ranks are not the worker's memory, and their machine is the user's
        host=HOST,
        protocol="tls",
        security=cluster_security(settings.folder),
        local_directory=str(settings.folder / "scratch"),
        dashboard=False,
        death_timeout=REGISTER_TIMEOUT_S,
    )
    await worker
    ends = [
        asyncio.create_task(worker.finished(), name="worker finished"),
        asyncio.create_task(told.wait(), name="told to end"),
        asyncio.create_task(
            channel.messages(), name="supervisor gone"
        ),  # it sends nothing: only its end comes
    ]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not ends[0].done():
        await worker.close(timeout=2, executor_wait=False, nanny=False, reason="cluster-ends")
    # Not through asyncio's own end: it would wait for threads of tasks that go on.
    os._exit(0)


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)
