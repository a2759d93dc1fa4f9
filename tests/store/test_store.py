"""All journals of a user read as one, whatever became of some of them."""

from __future__ import annotations

import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_train.errors import RunNotFound, StoreDamaged, StoreTooNew
from jupyter_train.home import journals_folder
from jupyter_train.record import RunState
from jupyter_train.store import JournalReader, JournalWriter, Store, schema
from jupyter_train.store.liveness import SILENT_AFTER_S
from jupyter_train.store.schema import VERSION
from tests.store.conftest import Keep, Story, finished
from tests.store.unprivileged import unprivileged

ASSETS = Path(__file__).parent / "assets"


def test_runs_of_all_journals_newest_first(keep: Keep, store: Store, story: Callable[..., Story]) -> None:
    for n, controller in enumerate(["b", "a", "b", "c"]):
        keep(controller, finished(story(n, name=f"run-{n}")))
    assert [r.name for r in store.runs()] == ["run-3", "run-2", "run-1", "run-0"]
    assert [r.name for r in store.runs(limit=2)] == ["run-3", "run-2"]
    assert store.problems == ()


def test_an_empty_home_has_no_runs_and_stays_empty(store: Store, tmp_path: Path) -> None:
    assert store.runs() == []
    assert not list(tmp_path.iterdir())


def test_the_default_is_the_users_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keep: Keep, story: Callable[..., Story]
) -> None:
    monkeypatch.setenv("JUPYTER_TRAIN_HOME", str(tmp_path))
    keep("a", finished(story()))
    assert len(Store().runs()) == 1


def test_events_and_view_of_one_run(keep: Keep, store: Store, story: Callable[..., Story]) -> None:
    run = finished(story())
    keep("a", run)
    assert [e.seq for e in store.events(run.run_id)] == [1, 2, 3, 4, 5]
    assert [e.seq for e in store.events(run.run_id, after=3)] == [4, 5]
    assert store.events(run.run_id, after=99) == []
    view = store.view(run.run_id)
    assert view.state is RunState.SUCCEEDED
    assert view.spec == run.spec
    assert view.curves["loss"][0].last == (1, 0.5)


def test_a_ref_becomes_an_id(keep: Keep, store: Store, story: Callable[..., Story]) -> None:
    old, new = finished(story(1)), finished(story(2, session="kernel-2"))
    keep("a", old, new)
    assert store.find("digits") == new.run_id
    assert store.find("last", session="kernel-1") == old.run_id
    with pytest.raises(RunNotFound, match=r"no run 'digts'. Did you mean 'digits'"):
        store.find("digts")


@pytest.mark.parametrize("ref", ["../../etc/passwd", "", "20261122-150000-ffffff", "digits", "x' OR '1'='1"])
def test_what_is_no_run_has_no_events(
    keep: Keep, store: Store, story: Callable[..., Story], ref: str
) -> None:
    keep("a", finished(story()))
    for use in (store.events, store.view):
        with pytest.raises(RunNotFound, match="no run"):
            use(ref)


def test_damaged_and_newer_journals_are_named_and_hide_nothing(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    run = finished(story(1))
    keep("good", run)
    folder = journals_folder(tmp_path)
    (folder / "damaged.sqlite").write_bytes(b"\x00\xffrubbish" * 1000)
    keep("newer", finished(story(2))).close()
    db = sqlite3.connect(folder / "newer.sqlite")
    db.execute("PRAGMA user_version = 9")
    db.close()
    keep("torn", finished(story(3))).close()
    whole = (folder / "torn.sqlite").read_bytes()
    (folder / "torn.sqlite").write_bytes(whole[:4096] + b"\x00" * (len(whole) - 4096))
    (folder / "folder.sqlite").mkdir()
    (folder / "empty.sqlite").touch()

    assert [r.run_id for r in store.runs()] == [run.run_id]
    damaged, newer, torn = store.problems
    assert isinstance(damaged, StoreDamaged)
    assert isinstance(newer, StoreTooNew)
    assert isinstance(torn, StoreDamaged)
    assert "damaged.sqlite" in str(damaged)
    assert "newer.sqlite was written by a newer jupyter_train" in str(newer)
    assert "torn.sqlite" in str(torn)
    assert [e.seq for e in store.events(run.run_id)] == [1, 2, 3, 4, 5]
    with pytest.raises(RunNotFound, match=r"Not looked at: .*newer\.sqlite"):
        store.find("nothing")


def test_of_two_copies_the_longer_one_counts(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    run = story()
    run.states("PENDING", "STARTING")
    keep("a", run).close()
    folder = journals_folder(tmp_path)
    shutil.copy(folder / "a.sqlite", folder / "copy.sqlite")
    run.states("RUNNING", "SUCCEEDED")
    again = JournalWriter(folder / "copy.sqlite")
    again.append(run.run_id, run.events)
    again.close()
    (summary,) = store.runs()
    assert summary.state is RunState.SUCCEEDED
    assert len(store.events(run.run_id)) == 4


def test_a_run_whose_controller_ended_is_lost(keep: Keep, store: Store, story: Callable[..., Story]) -> None:
    alive, done = story(1), finished(story(2))
    alive.states("PENDING", "STARTING", "RUNNING")
    writer = keep("a", alive, done)
    assert {r.run_id: r.state for r in store.runs()}[alive.run_id] is RunState.RUNNING
    assert store.view(alive.run_id).state is RunState.RUNNING
    writer.close()
    states = {r.run_id: r.state for r in store.runs()}
    assert states == {alive.run_id: RunState.LOST, done.run_id: RunState.SUCCEEDED}
    view = store.view(alive.run_id)
    assert view.state is RunState.LOST
    assert "ended while the run was RUNNING" in view.reason


def test_a_run_of_another_machine_is_lost_after_its_heartbeat(
    keep: Keep, tmp_path: Path, story: Callable[..., Story]
) -> None:
    run = story()
    run.states("PENDING", "STARTING", "RUNNING")
    keep("a", run).close()
    db = sqlite3.connect(journals_folder(tmp_path) / "a.sqlite")
    db.execute(
        "UPDATE controller SET closed = NULL, hostname = 'far', boot = 'x', beat_boot = 'x', heartbeat = 5000"
    )
    db.commit()
    db.close()
    for after_s, state in ((SILENT_AFTER_S - 1, RunState.RUNNING), (SILENT_AFTER_S + 1, RunState.LOST)):
        now = 5000.0 + after_s
        (summary,) = Store(tmp_path, clock=iter([now]).__next__).runs()
        assert summary.state is state
    assert summary.reason == "the controller on far fell silent while the run was RUNNING"


def test_rows_with_ids_that_are_none_are_not_shown(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    keep("a", finished(story())).close()
    db = sqlite3.connect(journals_folder(tmp_path) / "a.sqlite")
    db.execute("UPDATE runs SET run_id = '../../etc'")
    db.commit()
    db.close()
    assert store.runs() == []


def test_summaries_pickle(keep: Keep, store: Store, story: Callable[..., Story]) -> None:
    keep("a", finished(story()))
    assert pickle.loads(pickle.dumps(store.runs())) == store.runs()


def test_a_folder_that_may_only_be_read_is_read(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    keep("a", finished(story())).close()
    folder = journals_folder(tmp_path)
    before = sorted(folder.iterdir())
    with unprivileged(tmp_path):
        folder.chmod(0o500)
        try:
            assert len(store.runs()) == 1
            assert store.problems == ()
            assert sorted(folder.iterdir()) == before
        finally:
            folder.chmod(0o700)


@pytest.mark.parametrize("asset", sorted(ASSETS.glob("journal-*.sqlite")), ids=lambda p: p.stem)
def test_journals_of_every_version_stay_readable(store: Store, tmp_path: Path, asset: Path) -> None:
    journals_folder(tmp_path).mkdir()
    shutil.copy(asset, journals_folder(tmp_path))
    by_name = {r.name: r for r in store.runs()}
    assert store.problems == ()
    assert {name: (r.state, r.seq) for name, r in by_name.items()} == {
        "digits": (RunState.SUCCEEDED, 10),
        "broken": (RunState.FAILED, 4),
    }
    view = store.view(by_name["digits"].run_id)
    assert view.curves["loss"][0].values.tolist() == [2.0, 1.0, 0.5]
    assert view.artifacts["result"]["file"] == "result-1.bin"
    assert by_name["digits"].metrics["loss"].step == 3
    assert store.view(by_name["broken"].run_id).errors[0]["type"] == "ValueError"


def test_reading_the_store_imports_neither_torch_nor_dask_and_unpickles_nothing() -> None:
    code = (
        "import sys, jupyter_train.store; "
        "print([m for m in ('torch', 'dask', 'distributed', 'tornado', 'cloudpickle', 'xxhash') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
    source = Path(sys.modules[Store.__module__].__file__ or "").parent
    for file in [*source.glob("*.py"), *(source.parent / "record").glob("*.py")]:
        assert "import pickle" not in file.read_text(), file


@pytest.mark.parametrize("asset", sorted(ASSETS.glob("journal-*.sqlite")), ids=lambda p: p.stem)
def test_journals_of_every_version_are_gone_on_with(
    store: Store, tmp_path: Path, asset: Path, story: Callable[..., Story]
) -> None:
    journals_folder(tmp_path).mkdir()
    path = Path(shutil.copy(asset, journals_folder(tmp_path)))
    writer, run = JournalWriter(path), finished(story())
    writer.append(run.run_id, run.events)
    assert writer.flush()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    db.close()
    mark = JournalReader(path).mark()
    assert mark is not None
    assert mark.beat_s is not None
    writer.close()
    assert [(r.name, r.seq) for r in store.runs()] == [("broken", 4), ("digits", 10), ("digits", 5)]
    assert store.view(store.find("broken")).state is RunState.FAILED
    assert store.problems == ()


@pytest.mark.parametrize("asset", sorted(ASSETS.glob("journal-*.sqlite")), ids=lambda p: p.stem)
def test_runs_of_every_version_can_be_deleted(store: Store, tmp_path: Path, asset: Path) -> None:
    journals_folder(tmp_path).mkdir()
    path = Path(shutil.copy(asset, journals_folder(tmp_path)))
    store.delete(store.find("broken"))
    assert [s.name for s in JournalReader(path).summaries()] == ["digits"]


def test_a_change_of_tables_that_is_broken_off_changes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals_folder(tmp_path).mkdir()
    path = Path(shutil.copy(ASSETS / "journal-1.sqlite", journals_folder(tmp_path)))
    broken = {1: schema._MIGRATIONS[1] + "ALTER TABLE nothing ADD COLUMN x;"}
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_MIGRATIONS", broken)
        with pytest.raises(sqlite3.OperationalError, match="nothing"):
            JournalWriter(path)
    assert len(store.runs()) == 2
    JournalWriter(path).close()
    assert len(store.runs()) == 2
    assert store.problems == ()
