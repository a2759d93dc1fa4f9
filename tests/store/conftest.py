"""Runs for the tests of this folder, as a controller would hand them to its journal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jupyter_train.home import journals_folder
from jupyter_train.record import Event, EventKind, RunSpec
from jupyter_train.store import JournalWriter, Store

Keep = Callable[..., JournalWriter]


class Story:
    """Events of one run, numbered as they are told."""

    def __init__(self, run_id: str, *, start: float = 1000.0, **spec: Any) -> None:
        self.run_id = run_id
        self.events: list[Event] = []
        self._clock = itertools.count(start)
        given: dict[str, Any] = {
            "name": "digits",
            "source": "loss.backward()",
            "ranks": 2,
            "session": "kernel-1",
        } | spec
        self.spec = RunSpec(run_id=run_id, **given)

    def tell(self, kind: str, *, rank: int | None = None, attempt: int = 1, **payload: Any) -> Event:
        event = Event(
            run_id=self.run_id,
            seq=len(self.events) + 1,
            attempt=attempt,
            rank=rank,
            time=next(self._clock),
            kind=EventKind(kind),
            payload=payload,
        )
        self.events.append(event)
        return event

    def state(self, state: str, **payload: Any) -> Event:
        if state == "PENDING":
            payload.setdefault("spec", self.spec.to_dict(for_journal=True))
        return self.tell("state", state=state, **payload)

    def states(self, *states: str) -> list[Event]:
        return [self.state(s) for s in states]

    def loss(self, step: int, value: float, *, rank: int = 0, name: str = "loss") -> Event:
        column = {"step": np.array([step], np.int64), "value": np.array([value], np.float64)}
        return self.tell("metrics", rank=rank, columns={name: column})

    def prints(self, text: str, *, rank: int = 0) -> Event:
        return self.tell("log", rank=rank, stream="stdout", text=text)


@pytest.fixture
def story() -> Callable[..., Story]:
    """``story()``: a run of the name "digits"; a number gives another run, one second younger."""

    def make(number: int = 0, **given: Any) -> Story:
        run_id = f"20261122-15{number // 60:02}{number % 60:02}-{number:06x}"
        return Story(run_id, **{"start": 1000.0 + number * 1000} | given)

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal of this test lies."""
    return tmp_path / "journals" / "controller-1.sqlite"


@pytest.fixture
def writer(path: Path) -> Iterator[JournalWriter]:
    """A journal, closed at the end."""
    writer = JournalWriter(path)
    yield writer
    writer.close()


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """``keep("controller", run, …)`` writes runs to a journal of that controller, which lives on."""
    writers: dict[str, JournalWriter] = {}

    def write(controller: str, *runs: Story) -> JournalWriter:
        path = journals_folder(tmp_path) / f"{controller}.sqlite"
        if controller not in writers:
            writers[controller] = JournalWriter(path)
        writer = writers[controller]
        for run in runs:
            writer.append(run.run_id, run.events)
        assert writer.flush()
        return writer

    yield write
    for writer in writers.values():
        writer.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def finished(run: Story) -> Story:
    run.states("PENDING", "STARTING", "RUNNING")
    run.loss(1, 0.5)
    run.state("SUCCEEDED")
    return run
