"""A controller small enough for the engine's tests: launches ranks by worker RPC and keeps what they tell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from distributed import SchedulerPlugin

from jupyter_train.home import content_folder
from jupyter_train.record import Event, RunSpec, new_run_id, unpack_event
from jupyter_train.transport.capture import capture
from jupyter_train.transport.content import ContentStore


class TinyController(SchedulerPlugin):  # type: ignore[misc]
    """Lives on the scheduler; tests ask it through ``run_on_scheduler``."""

    name = "tiny-controller"

    def start(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.told: list[dict[str, Any]] = []
        self.ready: set[str] = set()
        self.packed: list[bytes] = []
        scheduler.tiny = self
        scheduler.stream_handlers.update(
            {"train-agent": self.agent, "train-rank": self.rank, "train-events": self.events}
        )

    def agent(self, worker: str, ready: bool) -> None:
        (self.ready.add if ready else self.ready.discard)(worker)

    def rank(self, worker: str, **told: Any) -> None:
        self.told.append({**told, "worker": worker, "at": time.time()})

    def events(self, worker: str, run_id: str, attempt: int, events: list[bytes], size: int) -> None:
        self.packed += events
        told = {"op": "train-ack", "run_id": run_id, "attempt": attempt, "size": size}
        self.scheduler.worker_send(worker, told)


class Cluster:
    """A real cluster with an agent on each worker, and the controller's part by hand."""

    def __init__(self, client: Any, home: Path) -> None:
        self.client = client
        self.home = home
        self.content = ContentStore(content_folder(home))
        self.workers = sorted(client.scheduler_info(n_workers=-1)["workers"])

    def scheduler(self, function: Any, **more: Any) -> Any:
        return self.client.run_on_scheduler(function, **more)

    def wait(self, predicate: Any, timeout_s: float = 30.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (value := predicate()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s} s: {predicate}; told {self.told()}")
            time.sleep(0.01)
        return value

    def wait_ready(self) -> None:
        self.wait(
            lambda: set(self.workers) <= self.scheduler(lambda dask_scheduler: dask_scheduler.tiny.ready),
            timeout_s=90,  # each zygote imports torch, on a busy machine for half a minute
        )

    def call(self, worker: str, op: str, **arguments: Any) -> Any:
        async def ask(dask_scheduler: Any) -> Any:
            return await getattr(dask_scheduler.rpc(worker), op)(**arguments)

        return self.scheduler(ask)

    def told(self, run_id: str | None = None) -> list[dict[str, Any]]:
        told = self.scheduler(lambda dask_scheduler: dask_scheduler.tiny.told)
        return [each for each in told if run_id in (None, each["run_id"])]

    def events(self, run_id: str) -> list[Event]:
        packed = self.scheduler(lambda dask_scheduler: dask_scheduler.tiny.packed)
        return [event for event in map(unpack_event, packed) if event.run_id == run_id]

    def spec(
        self, source: str, *, ranks: int = 2, namespace: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        run_id = new_run_id()
        self.capture = capture(source, namespace or {}, content=self.content)
        fields = {"run_id": run_id, "name": "test", "source": source, "ranks": ranks, "strategy": "none"}
        return RunSpec(**{**fields, "capture": self.capture.refs, **more}).to_dict()

    def launch(self, source: str, *, ranks: int = 2, **more: Any) -> str:
        spec = self.spec(source, ranks=ranks, **more)
        run_id: str = spec["run_id"]
        workers = self.workers[:ranks]

        async def launch(dask_scheduler: Any) -> Any:
            import asyncio

            met = await dask_scheduler.rpc(workers[0]).train_rendezvous(
                run_id=run_id, attempt=1, host_visible=False
            )
            return await asyncio.gather(
                *(
                    dask_scheduler.rpc(worker).train_launch(
                        run_id=run_id,
                        attempt=1,
                        spec=spec,
                        ranks=[[rank, rank]],
                        world_size=ranks,
                        local_world_size=ranks,
                        master_host=met["host"],
                        master_port=met["port"],
                    )
                    for rank, worker in enumerate(workers)
                )
            )

        self.pids = {int(rank): pid for each in self.scheduler(launch) for rank, pid in each["pids"].items()}
        return run_id

    def stop(self, run_id: str, mode: str) -> None:
        for worker in self.workers:
            self.call(worker, "train_stop_ranks", run_id=run_id, attempt=1, mode=mode)

    def wait_running(self, run_id: str, ranks: int = 2) -> None:
        self.wait(lambda: sum(each["status"] == "ready" for each in self.told(run_id)) == ranks)

    def wait_exits(self, run_id: str, ranks: int = 2, timeout_s: float = 30.0) -> dict[int, dict[str, Any]]:
        """Causes by rank."""

        def exits() -> dict[int, Any] | None:
            found = {each["rank"]: each["cause"] for each in self.told(run_id) if each["status"] == "exited"}
            return found if len(found) == ranks else None

        return self.wait(exits, timeout_s)  # type: ignore[no-any-return]


def text(events: list[Event], rank: int, stream: str = "stdout") -> str:
    """What a rank wrote."""
    return "".join(e.payload["text"] for e in events if e.rank == rank and e.payload.get("stream") == stream)


def processes_of(run_id: str) -> list[int]:
    """Every process that carries the run's mark."""
    mark = f"JUPYTER_TRAIN_RUN={run_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
