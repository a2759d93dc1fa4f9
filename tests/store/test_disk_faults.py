"""A full or failing disk, a locked file: the run goes on, and what was lost is told."""

from __future__ import annotations

import logging
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_train.store import JournalReader, JournalWriter
from jupyter_train.store.schema import open_for_writing
from tests.store.conftest import Story


class Disk:
    """Connections to a disk on which there is, or is not, room."""

    def __init__(self) -> None:
        self.is_full = False

    def connect(self, path: Path) -> sqlite3.Connection:
        db = open_for_writing(path)
        if self.is_full:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
            db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says "database or disk is full"
        return db


def wait_until(claim: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_events_wait_in_memory_while_the_disk_is_full(
    path: Path, disk: Disk, story: Callable[..., Story], caplog: pytest.LogCaptureFixture
) -> None:
    run, reader = story(), JournalReader(path)
    disk.is_full = True
    writer = JournalWriter(path, connect=disk.connect)
    for _ in range(40):
        writer.append(run.run_id, [run.prints("x" * 5000)])
    wait_until(lambda: "full" in writer.trouble)
    assert not writer.flush(timeout=0.1)
    assert not reader.events(run.run_id)
    disk.is_full = False
    assert writer.flush(timeout=30)
    wait_until(lambda: writer.trouble == "")
    writer.close()
    assert [e.seq for e in reader.events(run.run_id)] == list(range(1, 41))
    said = [r.getMessage() for r in caplog.records]
    assert len([s for s in said if "its events wait in memory" in s]) == 1  # once, not at every attempt
    assert len([s for s in said if "can be written again" in s]) == 1


def test_beyond_the_bound_the_gap_is_told_and_states_are_kept(
    path: Path, disk: Disk, story: Callable[..., Story]
) -> None:
    run = story()
    disk.is_full = True
    writer = JournalWriter(path, connect=disk.connect, backlog_bytes=20_000)
    writer.append(run.run_id, run.states("PENDING", "STARTING", "RUNNING"))
    for _ in range(50):
        writer.append(run.run_id, [run.prints("x" * 5000)])
    end = run.state("FAILED", reason="no")
    writer.append(run.run_id, [end])
    wait_until(lambda: bool(writer.trouble))
    disk.is_full = False
    assert writer.flush(timeout=30)
    writer.close()
    events = JournalReader(path).events(run.run_id)
    assert [e.payload["state"] for e in events if e.kind == "state"] == [
        "PENDING",
        "STARTING",
        "RUNNING",
        "FAILED",
    ]
    (remark,) = [e for e in events if e.payload.get("stream") == "remark"]
    kept = [e.seq for e in events if e.payload.get("stream") == "stdout"]
    first, last = kept[-1] + 1, end.seq - 1
    assert remark.seq == last
    assert remark.payload["text"] == (
        f"{last - first + 1} events (numbers {first} to {last}) could not be recorded: "
        "the disk of the journal was full or failed."
    )
    assert [e.seq for e in events] == sorted(e.seq for e in events)
    assert JournalReader(path).summaries()[0].state == "FAILED"


def test_a_file_that_somebody_locks_is_waited_for(path: Path, story: Callable[..., Story]) -> None:
    run = story()

    def impatient(where: Path) -> sqlite3.Connection:
        db = open_for_writing(where)
        db.execute("PRAGMA busy_timeout = 10")
        return db

    writer = JournalWriter(path, connect=impatient)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer.append(run.run_id, [run.prints("x")])
    wait_until(lambda: "locked" in writer.trouble)
    other.execute("COMMIT")
    other.close()
    assert writer.flush(timeout=30)
    assert len(JournalReader(path).events(run.run_id)) == 1
    writer.close()


def test_closing_on_a_full_disk_comes_to_an_end(
    path: Path, disk: Disk, story: Callable[..., Story], caplog: pytest.LogCaptureFixture
) -> None:
    run = story()
    disk.is_full = True
    writer = JournalWriter(path, connect=disk.connect)
    writer.append(run.run_id, [run.prints("x" * 100_000)])
    writer.close(timeout=0.2)
    assert not writer._thread.is_alive()
    assert "was closed while it could not be written" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


WRITES_PAST_A_LIMIT = """
import resource, sys, time
from pathlib import Path
from jupyter_train.record import Event, EventKind
from jupyter_train.store import JournalReader, JournalWriter

path = Path(sys.argv[1])
run = "20261122-150000-000001"
writer = JournalWriter(path)
no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, no_limit[1]))
for n in range(1, 101):
    writer.append(run, [Event(run_id=run, seq=n, time=1.0, kind=EventKind.LOG, payload={"stream": "stdout", "text": "x" * 10_000})])
deadline = time.monotonic() + 30
while not writer.trouble:
    assert time.monotonic() < deadline
    time.sleep(0.01)
print(writer.trouble, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
assert writer.flush(30)
writer.close()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit for files here")
def test_real_write_errors_of_the_system_are_outlived(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES_PAST_A_LIMIT, str(path)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout
    events = JournalReader(path).events("20261122-150000-000001")
    assert [e.seq for e in events] == list(range(1, 101))
