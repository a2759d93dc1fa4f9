"""A disk of three megabytes that gets full, and one that may only be read: real ones, where this user may mount them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SMALL = """
import json, os, sqlite3, subprocess, sys, time
from pathlib import Path
from jupyter_train.errors import StoreError
from jupyter_train.record import Event, EventKind, RunSpec
from jupyter_train.store import JournalCopy, JournalReader, JournalWriter, Store
from jupyter_train.transport.content import ContentStore

home, out, run = Path(sys.argv[1]), {}, "20261122-150000-000001"
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", home], check=True)
spec = RunSpec(run_id=run, name="small", source="", ranks=1).to_dict(for_journal=True)
events = [
    Event(run_id=run, seq=n, attempt=1, time=1.0, kind=EventKind.STATE, payload={"state": state, "spec": spec if n == 1 else None})
    for n, state in enumerate(("PENDING", "STARTING", "RUNNING"), 1)
]
events += [Event(run_id=run, seq=n, attempt=1, rank=0, time=1.0, kind=EventKind.LOG, payload={"stream": "stdout", "text": "x" * 10_000}) for n in range(4, 104)]
events += [Event(run_id=run, seq=104, attempt=1, time=2.0, kind=EventKind.STATE, payload={"state": "SUCCEEDED"})]

def told(use):
    try:
        use()
    except (OSError, sqlite3.Error, StoreError) as error:
        return [type(error).__name__, str(error)]

def fill():
    with open(home / "filler", "wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass

store = Store(home)
writer = JournalWriter(home / "journals" / "20261122-145900-0badcafe.sqlite")
writer.append(run, events[:3])
assert writer.flush(30)
store.rename(run, "before")
fill()
writer.append(run, events[3:])
until = time.monotonic() + 30
while not writer.trouble and time.monotonic() < until:
    time.sleep(0.01)
out["trouble"] = writer.trouble
out["while full"] = [(r.name, str(r.state)) for r in store.runs()]
out["rename"] = told(lambda: store.rename(run, "x" * 5000))
content = ContentStore(home / "content")
out["content"] = told(lambda: content.put(os.urandom(100_000)))
out["left behind"] = [str(p) for p in home.rglob("*.part")]
out["another journal"] = told(lambda: JournalWriter(home / "journals" / "other.sqlite").close())
(home / "filler").unlink()
out["flushed"] = writer.flush(30)
writer.close()
out["numbers"] = [e.seq for e in JournalReader(writer.path).events(run)] == list(range(1, 105))
out["after"] = [(r.name, str(r.state)) for r in store.runs()]
out["problems"] = [str(p) for p in store.problems]
store.rename(run, "after")
subprocess.run(["mount", "-o", "remount,ro", home], check=True)
out["read only"] = [(r.name, str(r.state)) for r in store.runs()]
out["read only problems"] = [str(p) for p in store.problems]
out["read only view"] = len(store.events(run))
out["read only rename"] = told(lambda: store.rename(run, "y"))
out["read only delete"] = told(lambda: store.delete(run))
out["read only content"] = told(lambda: content.put(b"123"))
out["read only copy"] = told(lambda: JournalCopy("20261122-145900-0badcaff", origin="", root=home).update(lambda after: {"runs": {}, "active": False}))
print(json.dumps(out))
"""


@cache
def why_not() -> str:
    """Why no disk can be mounted here; "" where one can."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip() if tried.returncode else ""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened on such a disk, in a mount namespace of its own."""
    if reason := why_not():
        pytest.skip(f"no disk can be mounted here: {reason}")
    home: Path = tmp_path_factory.mktemp("small")
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", SMALL, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_on_a_full_disk_everything_is_read_and_what_cannot_be_written_is_said(told: dict[str, Any]) -> None:
    assert "cannot be written (database or disk is full); new events wait in memory" in told["trouble"]
    assert told["while full"] == [["before", "RUNNING"]]
    kind, text = told["rename"]
    assert kind == "StoreError"
    assert "labels.sqlite: database or disk is full" in text
    assert "No space left on device" in told["content"][1]
    assert told["left behind"] == []
    assert "full" in told["another journal"][1] or "No space" in told["another journal"][1]


def test_with_room_again_nothing_of_the_run_is_lost(told: dict[str, Any]) -> None:
    assert told["flushed"]
    assert told["numbers"]
    assert told["after"] == [["before", "SUCCEEDED"]]
    assert told["problems"] == []


def test_a_store_on_a_read_only_disk_is_read_and_says_what_it_cannot_do(told: dict[str, Any]) -> None:
    assert told["read only"] == [["after", "SUCCEEDED"]]
    assert told["read only problems"] == []
    assert told["read only view"] == 104
    for use in ("rename", "delete"):
        kind, text = told[f"read only {use}"]
        assert kind == "StoreError"
        assert "names, tags and deletions cannot be written" in text
    for use in ("content", "copy"):
        assert "Read-only file system" in told[f"read only {use}"][1]
