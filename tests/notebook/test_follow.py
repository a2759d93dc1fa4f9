"""Following a run: what comes in late, twice, from elsewhere, or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jupyter_train.errors import ClusterUnreachable, RunNotFound
from jupyter_train.notebook.follow import Follower
from jupyter_train.notebook.source import (
    Batch,
    ControllerSource,
    FirstThatAnswers,
    HistoryFirst,
    StoreSource,
    all_events,
)
from jupyter_train.record import Event, RunSpec, RunState, RunView, unpack_event
from jupyter_train.store import JournalWriter, Store
from tests.notebook.fakes import FakeControl, FakeRun

SPEC = RunSpec(run_id="20261122-153000-ab12cd", name="digits", source="pass", ranks=2)


class Watcher:
    def __init__(self) -> None:
        self.connected: list[bool] = []
        self.closed: list[RunView] = []
        self.away = threading.Event()
        self.fails = False

    def step(self, events: tuple[Event, ...], view: RunView, *, connected: bool) -> None:
        self.connected.append(connected)
        if not connected:
            self.away.set()
        if self.fails:
            raise RuntimeError("cannot draw")

    def due_in(self) -> float:
        return float("inf")

    def close(self, view: RunView) -> None:
        self.closed.append(view)


@pytest.fixture
def run(control: FakeControl) -> FakeRun:
    return control.runs.setdefault(SPEC.run_id, FakeRun(control, SPEC))


def following(control: FakeControl, watcher: Watcher, **options: float) -> Follower:
    source = ControllerSource(control, SPEC.run_id)  # type: ignore[arg-type]
    return Follower(source, SPEC.run_id, watchers=[watcher], **options).start()


def test_it_follows_until_the_end_and_closes_its_watchers(control: FakeControl, run: FakeRun) -> None:
    watcher = Watcher()
    follower = following(control, watcher)
    run.begin()
    run.end()
    assert follower.done.wait(10)
    assert follower.view.state is RunState.SUCCEEDED
    assert [view.state for view in watcher.closed] == [RunState.SUCCEEDED]
    follower.join(10)


def test_a_lost_connection_is_told_and_survived(control: FakeControl, run: FakeRun) -> None:
    control.unreachable = True
    watcher = Watcher()
    follower = following(control, watcher)
    assert watcher.away.wait(10)
    control.unreachable = False
    run.begin()
    run.end()
    assert follower.done.wait(10)
    assert follower.view.state is RunState.SUCCEEDED
    assert follower.gave_up is None
    follower.join(10)


def test_it_gives_up_in_the_end_and_says_why(control: FakeControl, run: FakeRun) -> None:
    control.unreachable = True
    follower = following(control, Watcher(), give_up_s=0.0)
    assert follower.done.wait(10)
    assert isinstance(follower.gave_up, ClusterUnreachable)
    follower.join(10)


def test_a_watcher_that_fails_does_not_end_the_following(control: FakeControl, run: FakeRun) -> None:
    watcher = Watcher()
    watcher.fails = True
    follower = following(control, watcher)
    run.begin()
    run.end()
    assert follower.done.wait(10)
    assert follower.view.state is RunState.SUCCEEDED
    follower.join(10)


def test_a_kernel_exits_while_it_follows() -> None:
    code = """
import sys
from tests.notebook.fakes import FakeControl, FakeRun
from tests.notebook.test_follow import SPEC, Watcher, following
control = FakeControl()
run = control.runs[SPEC.run_id] = FakeRun(control, SPEC)
follower = following(control, Watcher())
run.begin()
assert run.watched.wait(10)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


class Journal:
    def __init__(self, run: FakeRun | None, lost: str = "") -> None:
        self.run = run
        self.lost = lost

    def poll(self, after: int, wait_s: float) -> Batch:
        if self.run is None:
            raise RunNotFound("not here")
        return Batch(events=tuple(unpack_event(data) for data in self.run.packed[after:]), lost=self.lost)


def test_the_journal_answers_where_the_controller_does_not(control: FakeControl, run: FakeRun) -> None:
    control.unreachable = True
    run.begin()
    controller = ControllerSource(control, SPEC.run_id)  # type: ignore[arg-type]
    assert len(FirstThatAnswers(controller, Journal(run)).poll(0, 0.0).events) == 3
    with pytest.raises(ClusterUnreachable):
        FirstThatAnswers(controller, Journal(None)).poll(0, 0.0)


def test_a_run_whose_controller_is_gone_is_lost(control: FakeControl, run: FakeRun) -> None:
    run.begin()
    watcher = Watcher()
    follower = Follower(
        Journal(run, lost="the controller fell silent"), SPEC.run_id, watchers=[watcher]
    ).start()
    assert follower.done.wait(10)
    assert watcher.closed[0].state is RunState.LOST
    assert watcher.closed[0].reason == "the controller fell silent"
    follower.join(10)


class Pages:
    """Gives out events a page at a time, and says which number it was asked for."""

    def __init__(self, run: FakeRun, *, size: int, lost: str = "") -> None:
        self.run, self.size, self.lost = run, size, lost
        self.asked: list[int] = []

    def poll(self, after: int, wait_s: float) -> Batch:
        self.asked.append(after)
        events = tuple(unpack_event(data) for data in self.run.packed[after : after + self.size])
        return Batch(events=events, lost="" if events else self.lost)


class Absent:
    def poll(self, after: int, wait_s: float) -> Batch:
        raise RunNotFound("no such run")


def test_a_history_of_many_pages_is_one_batch(control: FakeControl, run: FakeRun) -> None:
    run.begin()
    pages = Pages(run, size=2, lost="its controller fell silent")
    batch = all_events(pages, 1)
    assert [event.seq for event in batch.events] == [2, 3]
    assert batch.lost == "its controller fell silent"
    assert pages.asked == [1, 3]


def test_history_comes_from_the_journal_and_news_from_the_controller(run: FakeRun) -> None:
    run.begin()
    journal, news = Pages(run, size=99), Pages(run, size=99)
    source = HistoryFirst(journal, news)
    assert len(source.poll(0, 5.0).events) == 3
    run.end()
    assert [event.seq for event in source.poll(3, 5.0).events] == [4]
    assert (journal.asked, news.asked) == ([0], [3])


@pytest.mark.parametrize("journal", [Absent(), "empty"])
def test_without_a_journal_the_whole_history_is_asked_for(run: FakeRun, journal: object) -> None:
    run.begin()
    first = Pages(FakeRun(run.control, SPEC), size=1) if journal == "empty" else journal
    news = Pages(run, size=1)
    assert len(HistoryFirst(first, news).poll(0, 5.0).events) == 3  # type: ignore[arg-type]
    assert news.asked == [0, 1, 2, 3]


def test_news_are_read_from_the_journal_that_had_the_last_ones(
    run: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    writer = JournalWriter(tmp_path / "journals" / "c.sqlite")
    looked = []
    find = store.journal_of
    monkeypatch.setattr(store, "journal_of", lambda run_id: looked.append(run_id) or find(run_id))
    source = StoreSource(store, SPEC.run_id, sleep=lambda seconds: None)
    heard = 0
    try:
        for happens in (run.begin, lambda: run.metrics(0, loss=[1.0]), run.end):
            happens()
            events = [unpack_event(data) for data in run.packed[heard:]]
            writer.append(SPEC.run_id, events)
            assert writer.flush()
            assert len(source.poll(heard, 0.0).events) == len(events)
            heard = len(run.packed)
        assert len(looked) == 1
        assert source.poll(heard, 0.0) == Batch()
        store.delete(SPEC.run_id)
        with pytest.raises(RunNotFound):
            source.poll(heard, 0.0)
    finally:
        writer.close()
