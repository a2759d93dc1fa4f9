"""A lease: a Dask task that only waits, so that Dask knows a worker is busy with a rank.

Idle time-outs, adaptive scaling and dashboards count tasks and nothing else. The
task belongs to a client of the agent's own: when its worker dies, that client's
connection goes with it and the scheduler forgets the task, where one that nobody
owns would wait for the dead worker for ever. Losing a lease re-runs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)

CLIENT_NAME = "worker-lease"  #: Dask then calls the client Client-worker-…, as the workers' own
CLOSE_TIMEOUT_S = 1.0
END_TIMEOUT_S = 1.0

_held: dict[str, threading.Event] = {}


def hold(key: str) -> None:
    """The task: wait until the rank has ended. Runs in a thread of the worker."""
    event = _held.get(key)
    if event is not None:
        event.wait()


class Leases:
    """The leases of one agent. Lives in the worker's event loop."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._client: Any = None
        self._futures: dict[str, Any] = {}
        self._connecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, key: str) -> None:
        """Hold a lease of this name until `release`. Without a connection there is none, and the run goes on."""
        _held[key] = threading.Event()
        self._spawn(self._submit(key))

    async def _submit(self, key: str) -> None:
        try:
            client = await self._connected()
            if key in _held:  # not released meanwhile
                self._futures[key] = client.submit(
                    hold,
                    key,
                    key=key,
                    workers=[self._worker.address],
                    allow_other_workers=False,
                    pure=False,
                    retries=0,
                    priority=1000,
                )
        except Exception:  # Dask raises many kinds here, and none of them may cost the run
            logger.warning("no lease for %s: Dask does not see that its worker is busy", key, exc_info=True)

    def release(self, key: str) -> None:
        """End a lease; unknown ones are ignored."""
        event = _held.pop(key, None)
        if event is not None:
            event.set()
        future = self._futures.pop(key, None)
        if future is not None:
            self._spawn(_end(future))

    async def close(self) -> None:
        """End all leases and the connection."""
        for key in list(self._futures):
            self.release(key)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        client, self._client = self._client, None
        if client is not None:
            try:
                await asyncio.wait_for(client.close(CLOSE_TIMEOUT_S), CLOSE_TIMEOUT_S)
            except Exception:  # the scheduler may be gone already, in many ways
                pass

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self) -> Any:
        from distributed import Client

        async with self._connecting:
            if self._client is None or self._client.status == "closed":
                self._client = await Client(
                    self._worker.scheduler.address,
                    security=self._worker.security,
                    asynchronous=True,
                    set_as_default=False,
                    name=CLIENT_NAME,
                )
        return self._client


async def _end(future: Any) -> None:
    """Forget the task once it has returned; the worker warns of tasks that are cancelled while they run.

    One that still waits behind another task of its worker is cancelled.
    """
    from distributed import wait

    try:
        await wait([future], timeout=END_TIMEOUT_S)
    except Exception:  # a time-out, or the connection is gone, and the lease with it
        pass
    future.release()
