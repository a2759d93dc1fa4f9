"""A writer that is killed at any instant leaves a journal that can be read, and goes on with."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_train.record import RunState, fold
from jupyter_train.store import JournalReader, JournalWriter, Store
from jupyter_train.store.liveness import is_silent, process_start, this_boot, this_moment
from tests.store.conftest import Story

RUN = "20261122-150000-000001"
WRITER = f"""
import itertools, sys, threading
from pathlib import Path
import numpy as np
from jupyter_train.record import Event, EventKind, RunSpec
from jupyter_train.store import JournalWriter

spec = RunSpec(run_id="{RUN}", name="killed", source="", ranks=1)
writer = JournalWriter(Path(sys.argv[1]), gather_s=0.001)
seqs = itertools.count(1)

def say(kind, **payload):
    writer.append("{RUN}", [Event(run_id="{RUN}", seq=next(seqs), attempt=1, rank=0, time=1.0, kind=EventKind(kind), payload=payload)])

say("state", state="PENDING", spec=spec.to_dict(for_journal=True))
say("state", state="STARTING")
say("state", state="RUNNING")
for n in itertools.count(4):
    say("metrics", columns={{"loss": {{"step": np.arange(n, n + 50), "value": np.random.rand(50)}}}})
    if n % 20 == 0:
        assert writer.flush(60)
        print(n, flush=True)
"""


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


def lines(writer: subprocess.Popen[str], count: int) -> int:
    """The number of the newest event that the writer has said to be on disk, after ``count`` such lines."""
    assert writer.stdout is not None
    last = 0
    for _ in range(count):
        last = int(writer.stdout.readline())
    return last


@pytest.mark.parametrize("seed", range(6))
def test_kill_9_leaves_whole_transactions(path: Path, seed: int) -> None:
    choose = random.Random(seed)
    writer = start(path)
    try:
        promised = lines(writer, choose.randint(1, 20))
        time.sleep(choose.uniform(0, 0.02))  # anywhere within a transaction
    finally:
        writer.send_signal(signal.SIGKILL)
        out, _ = writer.communicate()
    promised = max([promised, *map(int, out.splitlines()[:-1])])
    events = JournalReader(path).events(RUN)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert len(events) >= promised
    (summary,) = JournalReader(path).summaries()
    assert summary.seq == events[-1].seq
    assert summary.metrics["loss"].step == fold(events).curves["loss"][0].steps[-1]

    (seen,) = Store(path.parent.parent).runs()
    assert seen.state is RunState.LOST
    assert "fell silent while the run was RUNNING" in seen.reason

    follower = JournalWriter(path)
    last = events[-1]
    follower.append(RUN, [last])
    follower.close()
    assert JournalReader(path).events(RUN)[-1].seq == last.seq


def test_a_journal_is_read_while_another_process_writes_it(path: Path) -> None:
    writer = start(path)
    try:
        lines(writer, 1)
        reader, last = JournalReader(path), 0
        reads: list[int] = []
        while len(reads) < 20:
            mark, (summary,) = reader.mark_and_summaries()
            new = [e.seq for e in reader.events(RUN, after=last)]
            assert new == list(range(last + 1, last + len(new) + 1))
            last += len(new)
            assert last >= summary.seq
            reads.append(len(new))
        assert len([r for r in reads if r]) > 1
        assert mark is not None
        assert not is_silent(
            mark, now=this_moment(time.time() + 3600), boot=this_boot(), start_of=process_start
        )
        assert Store(path.parent.parent).runs()[0].state is RunState.RUNNING
    finally:
        writer.kill()
        writer.communicate()


MAKES_MANY = """
import itertools, sys
from pathlib import Path
from jupyter_train.store import JournalWriter

for n in itertools.count():
    writer = JournalWriter(Path(sys.argv[1]) / f"journal-{n}.sqlite")
    print(n, flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_kill_9_while_a_journal_is_made_hides_nothing(path: Path, seed: int) -> None:
    command = [sys.executable, "-c", MAKES_MANY, str(path.parent)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines(writer, 3)
        time.sleep(random.Random(seed).uniform(0, 0.03))
    finally:
        writer.kill()
        writer.communicate()
    store = Store(path.parent.parent)
    assert store.runs() == []
    assert store.problems == ()
    for file in path.parent.glob("*.sqlite"):
        JournalWriter(file).close()  # each can be gone on with, and leaves nothing
    assert not list(path.parent.glob("*.sqlite"))


def test_half_a_transaction_outside_wal_is_rolled_back_by_the_reader(
    path: Path, story: Callable[..., Story]
) -> None:
    """On a disk that cannot have WAL, and for a moment while any journal is made."""
    run = story()
    whole = JournalWriter(path)
    whole.append(run.run_id, run.states("PENDING", "STARTING"))
    whole.close()
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "db.execute('PRAGMA journal_mode = DELETE'); db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN'); "
        "db.execute('UPDATE runs SET name = \"half\"'); "
        "db.execute('INSERT INTO batches VALUES (\"x\", 1, 1, zeroblob(1000000))'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.with_name(path.name + "-journal").exists()
    (summary,) = JournalReader(path).summaries()
    assert summary.name == "digits"
    assert len(JournalReader(path).events(run.run_id)) == 2
