"""A journal that has not changed is not read again; one that has always is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_train.store import JournalReader, JournalWriter, Store, glance
from jupyter_train.store.glance import Glances
from tests.store.conftest import Story, finished


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The journals that were opened, in order."""
    opened: list[Path] = []

    class Counted(JournalReader):
        def mark_and_summaries(self):  # type: ignore[no-untyped-def]
            opened.append(self.path)
            return super().mark_and_summaries()

    monkeypatch.setattr(glance, "JournalReader", Counted)
    return opened


def age(path: Path, by_s: float = 10.0) -> None:
    """Let the newest change of a journal have been ``by_s`` seconds ago."""
    for file in (path, path.with_name(path.name + "-wal")):
        if file.exists():
            ns = time.time_ns() - int(by_s * 1e9)
            os.utime(file, ns=(ns, ns))


def test_an_old_journal_is_read_once(
    writer: JournalWriter, reads: list[Path], story: Callable[..., Story]
) -> None:
    run = finished(story())
    writer.append(run.run_id, run.events)
    writer.close()
    age(writer.path)
    glances = Glances()
    first = glances.at(writer.path)
    assert glances.at(writer.path) is first
    assert len(reads) == 1


def test_every_commit_is_seen_however_soon_it_comes(
    writer: JournalWriter, path: Path, story: Callable[..., Story]
) -> None:
    run, store = story(), Store(path.parent.parent)
    run.states("PENDING", "STARTING", "RUNNING")
    writer.append(run.run_id, run.events)
    assert writer.flush()
    for _ in range(200):
        writer.append(run.run_id, [run.prints("x")])
        assert writer.flush()
        assert store.runs()[0].seq == len(run.events)


def test_what_was_read_in_the_instant_of_a_change_is_read_again(
    writer: JournalWriter, reads: list[Path], story: Callable[..., Story]
) -> None:
    run, glances = finished(story()), Glances()
    writer.append(run.run_id, run.events)
    assert writer.flush()
    for by_s, expected in ((0.0, 1), (0.0, 2), (-3600.0, 3), (10.0, 4), (10.0, 5)):
        age(writer.path, by_s)  # the clock of an hour ahead: it was set back since
        glances.at(writer.path)
        assert len(reads) == expected
    glances.at(writer.path)
    assert len(reads) == 5


def test_a_journal_in_the_place_of_another_is_read(
    path: Path, tmp_path: Path, story: Callable[..., Story]
) -> None:
    glances = Glances()
    assert glances.at(path).summaries == ()
    for number in (1, 2):
        run = finished(story(number))
        writer = JournalWriter(tmp_path / "new.sqlite")
        writer.append(run.run_id, run.events)
        writer.close()
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "new.sqlite").replace(path)
        age(path)
        assert [s.run_id for s in glances.at(path).summaries] == [run.run_id]
    path.unlink()
    assert glances.at(path).summaries == ()
