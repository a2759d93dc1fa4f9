"""Copies of journals that lie elsewhere: whole in the end, whatever happens on the way."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from jupyter_train.home import journals_folder
from jupyter_train.record import RunState, pack_event
from jupyter_train.store import JournalCopy, JournalReader, JournalWriter, Store
from jupyter_train.store.liveness import SILENT_AFTER_S, Moment, this_moment, this_process
from jupyter_train.store.plan import ROW_BYTES
from tests.store.conftest import Story, finished

CONTROLLER = "20261122-145900-0badcafe"
AT = "tcp://192.0.2.1:8786"


class Far:
    """A controller on another machine, that answers in pieces of so many events."""

    def __init__(self, *runs: Story, piece: int = 2) -> None:
        self.runs = list(runs)
        self.piece = piece
        self.asked: list[dict[str, int]] = []
        self.mark = asdict(this_process(CONTROLLER, "1", this_moment(5.0))) | {
            "boot": "far",
            "hostname": "far",
        }

    def ask(self, after: Mapping[str, int]) -> dict[str, Any]:
        self.asked.append(dict(after))
        new, left = {}, self.piece
        for run in self.runs:
            lacks = run.events[after.get(run.run_id, 0) :][:left]
            if lacks:
                new[run.run_id] = [pack_event(event) for event in lacks]
                left -= len(lacks)
        return {"mark": self.mark, "runs": new, "active": any(not ended(run) for run in self.runs)}


def ended(run: Story) -> bool:
    return any(e.payload.get("state") == "SUCCEEDED" for e in run.events)


@pytest.fixture
def copy(tmp_path: Path) -> JournalCopy:
    return JournalCopy(CONTROLLER, origin=AT, root=tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_copy_is_read_as_a_journal_is(copy: JournalCopy, store: Store, story: Callable[..., Story]) -> None:
    one, two = finished(story(1)), finished(story(2, name="other"))
    one.prints("x" * 2 * ROW_BYTES)
    far = Far(one, two)
    progress = copy.update(far.ask)
    assert progress is not None
    assert (progress.events, progress.is_active) == (11, False)
    assert [r.name for r in store.runs()] == ["other", "digits"]
    assert [pack_event(e) for e in store.events(one.run_id)] == [pack_event(e) for e in one.events]
    assert store.view(two.run_id).curves["loss"][0].last == (1, 0.5)
    assert JournalReader(copy.path).summaries()[0].seq == len(one.events)
    assert far.asked[-1] == {one.run_id: 6, two.run_id: 5}, "the last question says what is on disk"
    again = copy.update(far.ask)
    assert again is not None
    assert again.events == 0


def test_a_copy_that_was_broken_off_is_gone_on_with(
    copy: JournalCopy, store: Store, story: Callable[..., Story]
) -> None:
    run, calls = finished(story()), iter(range(100))
    far = Far(run)

    def broken(after: Mapping[str, int]) -> Mapping[str, Any]:
        if next(calls) == 1:
            raise ConnectionError("gone")
        return far.ask(after)

    with pytest.raises(ConnectionError):
        copy.update(broken)
    assert [e.seq for e in store.events(run.run_id)] == [1, 2]
    copy.update(broken)
    assert [e.seq for e in store.events(run.run_id)] == [1, 2, 3, 4, 5]
    assert far.asked[1] == {run.run_id: 2}


def test_what_comes_twice_is_there_once(copy: JournalCopy, store: Store, story: Callable[..., Story]) -> None:
    run = finished(story())
    far = Far(run, piece=3)

    def from_one_before(after: Mapping[str, int]) -> Mapping[str, Any]:
        reply = far.ask({run_id: max(0, seq - 1) for run_id, seq in after.items()})
        done = after.get(run.run_id) == len(run.events)
        return {**reply, "runs": {} if done else reply["runs"]}

    copy.update(from_one_before)
    assert [e.seq for e in store.events(run.run_id)] == [1, 2, 3, 4, 5]


def test_a_controller_that_repeats_itself_does_not_keep_the_copy_busy_for_ever(
    copy: JournalCopy, story: Callable[..., Story]
) -> None:
    far = Far(finished(story()), piece=99)
    with pytest.raises(ValueError, match="is there already"):
        copy.update(lambda after: far.ask({}))


def test_nothing_is_made_where_the_controller_never_had_a_run(copy: JournalCopy, store: Store) -> None:
    copy.update(Far().ask)
    assert not copy.path.exists()
    assert store.runs() == []


def test_what_was_deleted_here_is_not_copied_again_and_holds_nobody_up(
    copy: JournalCopy, store: Store, story: Callable[..., Story]
) -> None:
    gone, kept = finished(story(1)), finished(story(2))
    far = Far(gone, kept)
    copy.update(far.ask)
    store.delete(gone.run_id)
    far.runs.append(finished(story(3)))
    copy.update(far.ask)
    assert len(store.runs()) == 2
    assert far.asked[-1][gone.run_id] >= len(gone.events)
    store.rename(kept.run_id, "mine")
    kept.prints("late")
    copy.update(far.ask)
    assert "mine" in [r.name for r in store.runs()]


def test_a_run_in_a_copy_is_lost_once_nothing_is_heard_any_more(
    tmp_path: Path, story: Callable[..., Story]
) -> None:
    run, heard = story(), 7000.0
    run.states("PENDING", "STARTING", "RUNNING")
    copy = JournalCopy(
        CONTROLLER,
        origin=AT,
        root=tmp_path,
        moment=lambda: Moment(unix_s=heard, boot="elsewhere", steady_s=heard),
    )
    far = Far(run)  # its own clock says 5.0: that of the reader counts
    copy.update(far.ask)
    for age_s, state in ((SILENT_AFTER_S - 1, RunState.RUNNING), (SILENT_AFTER_S + 1, RunState.LOST)):
        (summary,) = Store(tmp_path, clock=lambda now=heard + age_s: now).runs()
        assert summary.state is state
    assert "nothing was heard since" in summary.reason
    assert f"%train cluster use {AT}" in summary.reason
    heard += SILENT_AFTER_S
    copy.update(far.ask)
    (summary,) = Store(tmp_path, clock=lambda: heard + 1).runs()
    assert summary.state is RunState.RUNNING


def test_where_the_journal_itself_is_no_copy_is_needed(
    tmp_path: Path, copy: JournalCopy, store: Store, story: Callable[..., Story]
) -> None:
    run = finished(story())
    assert copy.is_needed
    copy.update(Far(run).ask)
    assert copy.is_needed
    writer = JournalWriter(journals_folder(tmp_path) / f"{CONTROLLER}.sqlite")
    assert not copy.is_needed
    writer.append(run.run_id, run.events)
    assert writer.flush()
    assert len(store.runs()) == 1
    writer.close()
    assert not copy.is_needed


@pytest.mark.parametrize("controller", ["../../x", "", "20261122-145900", CONTROLLER + "/.."])
def test_what_is_no_controller_becomes_no_path(tmp_path: Path, controller: str) -> None:
    with pytest.raises(ValueError, match="not the id"):
        JournalCopy(controller, origin=AT, root=tmp_path)


def test_a_controller_that_lies_puts_nothing_into_the_copy(
    copy: JournalCopy, store: Store, story: Callable[..., Story]
) -> None:
    far, run = Far(), finished(story())
    packed = [pack_event(event) for event in run.events]
    for runs in ({"../x": packed}, {"20261122-150000-ffffff": packed}, {run.run_id: [b"rubbish"]}):
        with pytest.raises(ValueError, match=r"not the id|not a numbered|cut short"):
            copy.update(lambda after, runs=runs: {"mark": far.mark, "runs": runs, "active": False})
    assert store.runs() == []


def test_values_of_environment_variables_do_not_enter_a_copy(
    copy: JournalCopy, story: Callable[..., Story]
) -> None:
    run = story()
    run.state("PENDING", spec={**run.spec.to_dict(), "environment": {"TOKEN": "canary-4711"}})
    copy.update(Far(run).ask)
    assert len(JournalReader(copy.path).events(run.run_id)) == 1
    assert all(b"canary-4711" not in file.read_bytes() for file in copy.path.parent.iterdir())


COPIES = """
import sys
from pathlib import Path
from jupyter_train.record import split_events
from jupyter_train.store import JournalCopy, JournalReader

far = JournalReader(Path(sys.argv[2]))
copy = JournalCopy(sys.argv[3], origin="tcp://192.0.2.1:1", root=Path(sys.argv[1]))
copy._locked = __import__("contextlib").contextmanager(lambda: iter([True]))  # as on a disk without locks
mark = {name: getattr(far.mark(), name) for name in far.mark().__slots__}

def ask(after):
    runs = {s.run_id: far.packed(s.run_id, after.get(s.run_id, 0), at_most_bytes=300) for s in far.summaries()}
    return {"mark": mark, "runs": {run: events for run, events in runs.items() if events}, "active": False}

copy.update(ask)
"""


def test_two_processes_that_copy_at_once_make_one_copy(
    tmp_path: Path, store: Store, story: Callable[..., Story]
) -> None:
    far = tmp_path / "far" / f"{CONTROLLER}.sqlite"
    writer, run = JournalWriter(far), finished(story())
    for n in range(200):
        run.prints(f"line {n}")
    writer.append(run.run_id, run.events)
    writer.close()
    command = [sys.executable, "-c", COPIES, str(tmp_path), str(far), CONTROLLER]
    copiers = [subprocess.Popen(command) for _ in range(2)]
    assert [copier.wait(60) for copier in copiers] == [0, 0]
    assert [e.seq for e in store.events(run.run_id)] == list(range(1, 206))


def test_of_two_that_copy_one_waits_its_turn(
    tmp_path: Path, copy: JournalCopy, story: Callable[..., Story]
) -> None:
    far, other = Far(finished(story())), JournalCopy(CONTROLLER, origin=AT, root=tmp_path)
    inside: list[object] = []

    def ask(after: Mapping[str, int]) -> Mapping[str, Any]:
        inside.append(other.update(far.ask))
        return far.ask(after)

    copy.update(ask)
    assert inside
    assert set(inside) == {None}
    assert other.update(far.ask) is not None


def test_a_full_disk_leaves_the_copy_as_it_was(
    copy: JournalCopy, store: Store, monkeypatch: pytest.MonkeyPatch, story: Callable[..., Story]
) -> None:
    from jupyter_train.store import copies

    run = finished(story())
    far = Far(run)
    copy.update(far.ask)
    run.prints("y" * 500_000)

    def full(path: Path) -> sqlite3.Connection:
        db = open_for_writing(path)
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        return db

    open_for_writing = copies.open_for_writing
    with monkeypatch.context() as patch:
        patch.setattr(copies, "open_for_writing", full)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            copy.update(far.ask)
    assert far.asked[-1] == {run.run_id: 5}, "what is not on disk is not acknowledged"
    assert len(store.events(run.run_id)) == 5
    copy.update(far.ask)
    assert len(store.events(run.run_id)) == 6
