"""When a kernel copies the journal of a cluster, and when it stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from jupyter_train.errors import ClusterUnreachable
from jupyter_train.home import journals_folder
from jupyter_train.notebook import copying
from jupyter_train.notebook.copying import Copier, keep_copy
from jupyter_train.record import RunState, pack_event
from jupyter_train.store import JournalWriter, Store
from jupyter_train.store.liveness import this_moment, this_process
from tests.store.conftest import Story, story

__all__ = ["story"]  # the fixture
CONTROLLER = "20261122-145900-0badcafe"


class FarConnection:
    """A connection to a cluster whose journal is elsewhere, and the controller of that."""

    def __init__(self, run: Story) -> None:
        self.kind = "address"
        self.address = f"tcp://192.0.2.1:{id(self) % 60000}"
        self.is_alive = True
        self.control = self
        self.run = run
        self.asked: list[tuple[dict[str, int], bool]] = []
        self.failures: list[Exception] = []

    def hello(self) -> dict[str, Any]:
        return {"controller": CONTROLLER}

    def journal(self, after: Mapping[str, int], *, reads_file: bool = False) -> dict[str, Any]:
        self.asked.append((dict(after), reads_file))
        if self.failures:
            raise self.failures.pop(0)
        new = self.run.events[after.get(self.run.run_id, 0) :]
        mark = asdict(this_process(CONTROLLER, "1", this_moment()))
        runs = {self.run.run_id: [pack_event(event) for event in new]} if new else {}
        return {
            "mark": mark,
            "runs": runs,
            "active": all("SUCCEEDED" not in str(e.payload) for e in self.run.events),
        }


@pytest.fixture
def far(story: Any) -> Iterator[FarConnection]:
    run = story()
    run.states("PENDING", "STARTING", "RUNNING")
    made = FarConnection(run)
    yield made
    made.is_alive = False


def wait_until(claim: Any, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.005)


def copier(far: FarConnection, **more: Any) -> Copier:
    return Copier(far, **{"period_s": 0.005} | more).start()  # type: ignore[arg-type]


def test_it_goes_on_while_a_run_does_and_ends_with_it(far: FarConnection) -> None:
    made = copier(far)
    wait_until(lambda: [r.seq for r in Store().runs()] == [3])
    assert made.go_on()
    far.run.loss(1, 0.5)
    wait_until(lambda: Store().runs()[0].seq == 4)
    far.run.state("SUCCEEDED")
    made.join(30)
    assert not made.go_on()
    assert Store().runs()[0].state is RunState.SUCCEEDED
    assert far.asked[-1] == ({far.run.run_id: 5}, False)


def test_it_outlives_a_cluster_that_does_not_answer_for_a_while(far: FarConnection) -> None:
    far.failures = [ClusterUnreachable("gone")] * 5
    far.run.state("SUCCEEDED")
    copier(far).join(30)
    assert Store().runs()[0].state is RunState.SUCCEEDED


def test_it_gives_a_silent_cluster_up_without_a_word(
    far: FarConnection, caplog: pytest.LogCaptureFixture
) -> None:
    far.failures = [ClusterUnreachable("gone")] * 100_000
    copier(far, give_up_s=0.05).join(30)
    assert Store().runs() == []
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING], "whoever follows a run says it"


def test_a_disk_that_refuses_is_named_once_and_tried_again(
    far: FarConnection, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journals_folder(home).parent.mkdir(exist_ok=True)
    journals_folder(home).write_text("in the way")
    far.run.state("SUCCEEDED")
    made = copier(far)
    wait_until(lambda: bool(caplog.records))
    journals_folder(home).unlink()
    made.join(30)
    (said,) = [r.getMessage() for r in caplog.records if r.name == "jupyter_train"]
    assert far.address in said
    assert "is not copied to this disk" in said
    assert Store().runs()[0].state is RunState.SUCCEEDED


def test_a_journal_that_is_here_is_not_copied_and_the_controller_hears_of_it(
    far: FarConnection, home: Path
) -> None:
    writer = JournalWriter(journals_folder(home) / f"{CONTROLLER}.sqlite")
    try:
        copier(far).join(30)
        assert far.asked == [({}, True)]
        assert len(list(journals_folder(home).glob("*.sqlite"))) == 1
    finally:
        writer.close()


def test_one_thread_copies_however_often_it_is_asked_for(
    far: FarConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_copiers", {})
    for _ in range(3):
        keep_copy(far)  # type: ignore[arg-type]
    (only,) = copying._copiers.values()
    far.run.state("SUCCEEDED")
    keep_copy(far)  # type: ignore[arg-type]
    only.join(30)
    far.run.prints("late")
    keep_copy(far)  # type: ignore[arg-type]
    (another,) = copying._copiers.values()
    assert another is not only
    another.join(30)
    assert Store().runs()[0].seq == 5


def test_a_cluster_of_ours_needs_no_copy(far: FarConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_copiers", {})
    far.kind = "local"
    keep_copy(far)  # type: ignore[arg-type]
    assert copying._copiers == {}
