"""Names, tags and deletions: a reader's own words about runs, whatever becomes of the journals."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_train.errors import RunError, RunNotFound, StoreDamaged, StoreError, StoreTooNew
from jupyter_train.home import journals_folder, run_folder
from jupyter_train.record import RunState
from jupyter_train.store import JournalReader, Store
from jupyter_train.store.labels import FILE
from tests.store.conftest import Keep, Story, finished
from tests.store.unprivileged import unprivileged


def files_of(run: Story, root: Path) -> Path:
    folder = run_folder(run.run_id, root)
    folder.mkdir(parents=True)
    (folder / "result-1.bin").write_bytes(b"x" * 10_000)
    return folder


def test_a_new_name_is_found_and_shown_everywhere(
    keep: Keep, store: Store, story: Callable[..., Story]
) -> None:
    run = finished(story())
    keep("a", run)
    store.rename(run.run_id, "best so far")
    assert [r.name for r in store.runs()] == ["best so far"]
    assert store.find("best so far") == run.run_id
    spec = store.view(run.run_id).spec
    assert spec is not None
    assert spec.name == "best so far"
    store.rename(run.run_id, None)
    assert [r.name for r in store.runs()] == ["digits"]


def test_tags_come_over_those_that_the_run_was_submitted_with(
    keep: Keep, store: Store, story: Callable[..., Story]
) -> None:
    run = finished(story(tags={"paper": "1", "draft": "yes"}))
    keep("a", run)
    store.tag(run.run_id, {"paper": "2", "draft": None})
    store.tag(run.run_id, {"mood": "good"})
    (summary,) = store.runs()
    spec = store.view(run.run_id).spec
    assert spec is not None
    assert summary.spec["tags"] == spec.tags == {"paper": "2", "mood": "good"}


def test_what_is_said_outlives_the_next_copy_of_the_journal(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    kept, gone = finished(story(1)), finished(story(2))
    keep("a", kept, gone).close()
    original = shutil.copy(journals_folder(tmp_path) / "a.sqlite", tmp_path / "a")
    store.rename(kept.run_id, "mine")
    store.delete(gone.run_id)
    shutil.copy(original, journals_folder(tmp_path) / "a.sqlite")
    assert [r.name for r in store.runs()] == ["mine"]
    with pytest.raises(RunNotFound):
        store.view(gone.run_id)


def test_a_deleted_run_leaves_neither_files_nor_rows(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    kept, gone = finished(story(1)), finished(story(2))
    gone.prints("y" * 300_000)
    folder, other = files_of(gone, tmp_path), files_of(kept, tmp_path)
    keep("a", kept, gone).close()
    path = journals_folder(tmp_path) / "a.sqlite"
    sizes, before = store.sizes(), path.stat().st_size
    assert sizes[gone.run_id] > 300_000 + 10_000 > sizes[kept.run_id] > 10_000
    assert store.delete(gone.run_id) >= 300_000
    assert not folder.exists()
    assert other.exists()
    assert path.stat().st_size < before - 250_000
    assert JournalReader(path).events(gone.run_id) == []
    assert len(JournalReader(path).events(kept.run_id)) == 5
    assert [r.run_id for r in store.runs()] == [kept.run_id]
    store.delete(kept.run_id)
    assert not list(path.parent.iterdir()), "a journal without runs goes"


def test_rows_of_a_living_controller_wait_until_it_is_gone(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    run, other = finished(story(1)), finished(story(2))
    writer = keep("a", run, other)
    folder = files_of(run, tmp_path)
    store.delete(run.run_id)
    assert [r.run_id for r in store.runs()] == [other.run_id]
    assert not folder.exists()
    assert len(JournalReader(writer.path).events(run.run_id)) == 5
    writer.append(run.run_id, [run.prints("late")])
    writer.close()
    assert store.sweep() >= 0
    assert JournalReader(writer.path).events(run.run_id) == []
    assert [r.run_id for r in store.runs()] == [other.run_id]


def test_a_run_that_goes_on_is_not_deleted_and_nothing_with_it(
    keep: Keep, store: Store, story: Callable[..., Story]
) -> None:
    done, alive = finished(story(1)), story(2)
    alive.states("PENDING", "STARTING", "RUNNING")
    writer = keep("a", done, alive)
    with pytest.raises(RunError, match="is RUNNING: stop it first"):
        store.delete(done.run_id, alive.run_id)
    with pytest.raises(RunNotFound):
        store.delete(done.run_id, "20261122-150000-ffffff")
    assert len(store.runs()) == 2
    writer.close()
    assert store.view(alive.run_id).state is RunState.LOST
    store.delete(done.run_id, alive.run_id)
    assert store.runs() == []


@pytest.mark.parametrize("ref", ["../../etc", "", "20261122-150000-ffffff"])
def test_nothing_is_said_of_what_is_no_run(
    keep: Keep, store: Store, story: Callable[..., Story], ref: str
) -> None:
    keep("a", finished(story()))
    for use in (
        lambda: store.rename(ref, "x"),
        lambda: store.tag(ref, {"a": "b"}),
        lambda: store.delete(ref),
    ):
        with pytest.raises(RunNotFound):
            use()


def test_a_link_in_the_place_of_a_runs_folder_is_not_followed(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    run = finished(story())
    keep("a", run).close()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").touch()
    folder = files_of(run, tmp_path)
    shutil.rmtree(folder)
    folder.symlink_to(precious)
    store.delete(run.run_id)
    assert (precious / "thesis").exists()


def test_labels_that_cannot_be_read_are_named_and_hide_no_run(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    run = finished(story())
    keep("a", run)
    store.rename(run.run_id, "mine")
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 9")
    db.close()
    assert [r.name for r in store.runs()] == ["digits"]
    (problem,) = store.problems
    assert isinstance(problem, StoreTooNew)
    with pytest.raises(StoreTooNew, match="Upgrade"):
        store.rename(run.run_id, "other")
    (tmp_path / FILE).write_bytes(b"\x00rubbish" * 1000)
    assert [r.name for r in store.runs()] == ["digits"]
    (problem,) = store.problems
    assert isinstance(problem, StoreDamaged)
    assert FILE in str(problem)


def test_a_store_that_may_only_be_read_says_so_and_deletes_nothing(
    keep: Keep, tmp_path: Path, story: Callable[..., Story]
) -> None:
    run = finished(story())
    keep("a", run).close()
    folder = files_of(run, tmp_path)
    with unprivileged(tmp_path):
        tmp_path.chmod(0o500)
        try:
            store = Store(tmp_path)
            for use in (lambda: store.rename(run.run_id, "x"), lambda: store.delete(run.run_id)):
                with pytest.raises(StoreError, match=r"cannot be written to .*labels\.sqlite"):
                    use()
            assert [r.name for r in store.runs()] == ["digits"]
        finally:
            tmp_path.chmod(0o700)
    assert folder.exists()


TAGS = """
import sys
from pathlib import Path
from jupyter_train.store import Store

store = Store(Path(sys.argv[1]))
for n in range(20):
    store.tag(sys.argv[2], {f"{sys.argv[3]}-{n}": "x"})
"""


def test_what_several_processes_say_at_once_is_all_kept(
    keep: Keep, store: Store, tmp_path: Path, story: Callable[..., Story]
) -> None:
    run = finished(story())
    keep("a", run)
    writers = [
        subprocess.Popen([sys.executable, "-c", TAGS, str(tmp_path), run.run_id, who]) for who in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(store.runs()[0].spec["tags"]) == 40
