"""What a user says of a run afterwards: ``run.rename``, ``run.tag``, ``run.delete``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jupyter_train as jt
from jupyter_train.errors import RunError, RunNotFound
from jupyter_train.home import journals_folder
from jupyter_train.notebook.session import current_session
from jupyter_train.store import JournalWriter
from tests.store.conftest import Story, story

__all__ = ["story"]  # the fixture


@pytest.fixture
def journal(home: Path) -> Iterator[JournalWriter]:
    writer = JournalWriter(journals_folder(home) / "controller.sqlite")
    yield writer
    writer.close()
    current_session().runs.clear()


def written(journal: JournalWriter, run: Story, *states: str) -> Story:
    run.states("PENDING", "STARTING", "RUNNING", *states)
    journal.append(run.run_id, run.events)
    assert journal.flush()
    return run


def test_a_renamed_run_answers_to_its_new_name(journal: JournalWriter, story: Callable[..., Story]) -> None:
    run = jt.run(written(journal, story(), "SUCCEEDED").run_id)
    run.rename("the good one")
    assert run.name == "the good one"
    assert jt.run("the good one").id == run.id
    assert "the good one" in repr(jt.runs())
    for wrong in ("last", "", run.id):
        with pytest.raises(ValueError, match="name"):
            run.rename(wrong)


def test_tags_of_a_run_are_seen_by_every_reader(journal: JournalWriter, story: Callable[..., Story]) -> None:
    run = jt.run(written(journal, story(tags={"a": "1"}), "SUCCEEDED").run_id)
    run.tag(a=None, table="2")
    assert jt.runs()[0].spec["tags"] == {"table": "2"}


def test_a_deleted_run_is_gone_from_this_kernel_too(
    journal: JournalWriter, story: Callable[..., Story]
) -> None:
    run = jt.run(written(journal, story(), "SUCCEEDED").run_id)
    run.delete()
    assert len(jt.runs()) == 0
    with pytest.raises(RunNotFound):
        jt.run(run.id)


def test_a_run_that_goes_on_is_kept(journal: JournalWriter, story: Callable[..., Story]) -> None:
    run = jt.run(written(journal, story()).run_id)
    with pytest.raises(RunError, match="stop it first"):
        run.delete()
    assert len(jt.runs()) == 1
