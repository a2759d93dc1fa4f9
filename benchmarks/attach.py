"""``%train attach`` of a long run: cell sent -> its whole history is drawn. Measure ``attach``.

The run goes on; its journal is written here as a controller writes it, of ranks that send what they measured twice a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kernel import Kernel, training_kernel
from benchmarks.report import OURS, Row, progress, row
from jupyter_train.home import journals_folder
from jupyter_train.record import Event, EventKind, RunSpec
from jupyter_train.store import JournalWriter

ROUNDS = 10
STEPS = 100_000
RANKS = 2
STEP_TIME_S = 0.02
FLUSH_S = 0.5  #: of the ranks' recorders
METRICS = ("loss", "lr", "step_time_s", "samples_per_s")
RUN = "20261122-153000-ab12cd"


def history(steps: int = STEPS) -> Iterator[Event]:
    """The events of a run of so many steps that has not ended, numbered."""
    rng = np.random.default_rng(0)
    per_flush = round(FLUSH_S / STEP_TIME_S)
    began = time.time() - steps * STEP_TIME_S
    told = iter(range(1, 10**9))

    def event(time: float, kind: EventKind, payload: dict[str, Any], rank: int | None = None) -> Event:
        return Event(run_id=RUN, seq=next(told), attempt=1, rank=rank, time=time, kind=kind, payload=payload)

    spec = RunSpec(run_id=RUN, name="long", source="pass", ranks=RANKS)
    yield event(began, EventKind.STATE, {"state": "PENDING", "spec": spec.to_dict(for_journal=True)})
    yield event(began, EventKind.STATE, {"state": "STARTING"})
    yield event(began, EventKind.STATE, {"state": "RUNNING"})
    for flush, first in enumerate(range(0, steps, per_flush), 1):
        now = began + flush * FLUSH_S
        numbers = np.arange(first, min(first + per_flush, steps)) + 1
        for rank in range(RANKS):
            columns = {name: {"step": numbers, "value": rng.random(len(numbers))} for name in METRICS}
            yield event(now, EventKind.METRICS, {"columns": columns}, rank)
            if flush % 2 == 0:
                yield event(now, EventKind.USAGE, {"cpu_cores": 0.9, "memory_bytes": 10**9}, rank)
        bar = {
            "stream": "progress",
            "bar": "1",
            "label": "step",
            "done": int(numbers[-1]),
            "total": 2 * steps,
        }
        yield event(now, EventKind.LOG, bar, 0)


def shows_all(data: dict[str, Any], steps: int = STEPS) -> bool:
    """Whether a display has the picture and the newest step."""
    return "image/png" in data and f" step {steps} " in data["text/plain"]


def one(kernel: Kernel) -> float:
    """Milliseconds from the cell's being sent until all is shown."""
    message, pressed = kernel.press("%train attach long")
    return 1e3 * (kernel.shown(message, shows_all) - pressed)


def measure(rounds: int | None = None) -> Iterator[Row]:
    """``rounds`` fresh kernels, each of which attaches twice."""
    first, again, events = [], [], 0
    for i in range(rounds or ROUNDS):
        with training_kernel() as kernel:
            written, events = _journal(kernel.home)
            try:
                first.append(one(kernel))
                again.append(one(kernel))
            finally:
                written.close()
        progress(f"round {i + 1}: {first[-1]:.0f} ms in a fresh kernel, {again[-1]:.0f} ms again")
    progress(f"{STEPS} steps on {RANKS} ranks are {events} events")
    yield row("attach", OURS, "fresh kernel", "ms", first)
    yield row("attach", OURS, "again", "ms", again)


def _journal(home: Path) -> tuple[JournalWriter, int]:
    """The journal of the run, still open: its controller lives. And how many events it has."""
    writer = JournalWriter(journals_folder(home) / "bench.sqlite", backlog_bytes=2**31)
    events = list(history())
    for at in range(0, len(events), 1000):
        writer.append(RUN, events[at : at + 1000])
    if not writer.flush(120):
        raise RuntimeError(f"the journal was not written: {writer.trouble}")
    return writer, len(events)
