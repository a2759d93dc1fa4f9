"""An agent without processes: it answers to the names of the real one, and its ranks do what a test says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from distributed import Worker, WorkerPlugin

from jupyter_train.record import Event, EventKind, pack_event


class FakeAgent(WorkerPlugin):  # type: ignore[misc]
    """Records what it is asked; ``script`` says what launched ranks do by themselves.

    ``script``: "ready" (begin the cell and wait), "done" (begin and end it),
    "silent" (say nothing), "refuse" (the launch fails), "hang" (the launch never answers).
    ``obeys``: whether a rank that is told to end does so.
    """

    name = "jupyter-train-agent"
    idempotent = True

    def __init__(self, script: str = "ready", *, obeys: bool = True, speaks: bool = True) -> None:
        self.script = script
        self.obeys = obeys
        self.speaks = speaks

    def setup(self, worker: Worker) -> None:
        self.worker = worker
        self.asked: list[tuple[str, dict[str, Any], float]] = []
        self.ranks: dict[tuple[str, int], int] = {}  #: (run id, attempt) → the rank here
        self.content: dict[str, bytes] = {}
        self.folder = f"folder of {worker.address}"
        self.files: dict[str, bytes] = {}
        self.spooled: list[bytes] = []
        self.stacks = "Thread 1 (main)"
        for op in (
            "train_rendezvous",
            "train_launch",
            "train_stop_ranks",
            "train_stacks",
            "train_content_missing",
            "train_content_put",
            "train_artifact_get",
            "train_spool",
        ):
            worker.handlers[op] = getattr(self, op)
        if self.speaks:
            worker.batched_send({"op": "train-agent", "ready": True})

    def calls(self, op: str) -> list[dict[str, Any]]:
        """The arguments of each call of ``op`` so far."""
        return [arguments for name, arguments, _ in self.asked if name == op]

    # What the controller asks

    def train_rendezvous(self, **given: Any) -> dict[str, Any]:
        self._note("train_rendezvous", given)
        return {"host": "127.0.0.1", "port": 4242}

    async def train_launch(self, **given: Any) -> dict[str, Any]:
        self._note("train_launch", given)
        if self.script == "refuse":
            return {"error": {"type": "OSError", "message": "no memory for another process"}}
        if self.script == "hang":
            import asyncio

            await asyncio.sleep(3600)
        run_id, attempt, ((rank, _),) = given["run_id"], given["attempt"], given["ranks"]
        self.ranks[run_id, attempt] = rank
        if self.script in ("ready", "done"):
            self.ready(run_id, attempt)
        if self.script == "done":
            self.exit(run_id, attempt=attempt)
        return {"pids": {rank: 1}}

    def train_stop_ranks(self, run_id: str, attempt: int, mode: str) -> dict[str, Any]:
        self._note("train_stop_ranks", {"run_id": run_id, "attempt": attempt, "mode": mode})
        if self.obeys and (run_id, attempt) in self.ranks:
            kind, signal = ("signal", 9) if mode == "kill" else ("stopped", 0)
            self.exit(run_id, kind, attempt=attempt, signal=signal)
        return {}

    def train_stacks(self, run_id: str, attempt: int, **given: Any) -> dict[str, Any]:
        self._note("train_stacks", {"run_id": run_id, "attempt": attempt, **given})
        return {"stacks": {self.ranks[run_id, attempt]: self.stacks}}

    def train_content_missing(self, keys: list[str]) -> dict[str, Any]:
        self._note("train_content_missing", {"keys": keys})
        return {"folder": self.folder, "missing": [k for k in keys if k not in self.content]}

    def train_content_put(self, key: str, offset: int, total: int, data: bytes) -> None:
        self._note("train_content_put", {"key": key, "offset": offset, "total": total})
        self.content[key] = self.content.get(key, b"") + bytes(data)

    def train_artifact_get(self, run_id: str, name: str, offset: int, length: int) -> dict[str, Any]:
        if name not in self.files:
            return {"error": {"type": "RunError", "message": f"no file {name}"}}
        data = self.files[name]
        return {"data": data[offset : offset + length], "total": len(data)}

    def train_spool(self, run_id: str, attempt: int) -> dict[str, Any]:
        self._note("train_spool", {"run_id": run_id, "attempt": attempt})
        return {"events": self.spooled}

    # What a test makes its rank do

    def ready(self, run_id: str, attempt: int = 1) -> None:
        self._tell(run_id, attempt, {"status": "ready"})

    def exit(self, run_id: str, kind: str = "done", attempt: int = 1, **cause: Any) -> None:
        self._tell(run_id, attempt, {"status": "exited", "cause": {"kind": kind, **cause}})

    def send(self, run_id: str, *events: bytes, attempt: int = 1) -> None:
        self.worker.batched_send(
            {"op": "train-events", "run_id": run_id, "attempt": attempt, "events": list(events)}
        )

    def _tell(self, run_id: str, attempt: int, what: dict[str, Any]) -> None:
        rank = self.ranks[run_id, attempt]
        self.worker.batched_send(
            {"op": "train-rank", "run_id": run_id, "attempt": attempt, "rank": rank, **what}
        )

    def _note(self, op: str, arguments: dict[str, Any]) -> None:
        self.asked.append((op, arguments, time.perf_counter()))


def event(
    run_id: str,
    rank_seq: int,
    *,
    rank: int = 0,
    attempt: int = 1,
    kind: EventKind = EventKind.LOG,
    payload: Mapping[str, Any] | None = None,
) -> bytes:
    """A packed event, as a rank sends it."""
    return pack_event(
        Event(
            run_id=run_id,
            attempt=attempt,
            rank=rank,
            rank_seq=rank_seq,
            time=1.0,
            kind=kind,
            payload={"stream": "stdout", "text": f"line {rank_seq}\n"} if payload is None else payload,
        )
    )


def metrics(run_id: str, rank_seq: int, *, rank: int = 0, points: int = 20) -> bytes:
    """A packed flush of metrics, as a training rank sends it."""
    steps = np.arange(points) + rank_seq * points
    columns = {
        name: {"step": steps, "value": steps * 0.5} for name in ("loss", "lr", "step_time_s", "samples_per_s")
    }
    return event(run_id, rank_seq, rank=rank, kind=EventKind.METRICS, payload={"columns": columns})


def checkpoint(run_id: str, rank_seq: int, number: int, *, rank: int = 0, attempt: int = 1) -> bytes:
    """A packed part of a checkpoint, taken after ten steps for each number."""
    own = f".{rank}" if rank else ""
    payload = {
        "number": number,
        "step": 10 * number,
        "epoch": 0,
        "file": f"checkpoint-{attempt}-{number}{own}.pt",
        "size_bytes": 5,
        "worker": "w",
    }
    return event(run_id, rank_seq, rank=rank, attempt=attempt, kind=EventKind.CHECKPOINT, payload=payload)


def error(run_id: str, rank_seq: int, *, rank: int = 0, secondary: bool = False) -> bytes:
    """A packed error, as a rank sends it before it exits."""
    payload = {
        "type": "ValueError",
        "module": "builtins",
        "message": f"bad {rank}",
        "frames": [],
        "text": f"ValueError: bad {rank}",
        "secondary": secondary,
        "cause": "exception",
    }
    return event(run_id, rank_seq, rank=rank, kind=EventKind.ERROR, payload=payload)
