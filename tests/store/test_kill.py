"""A writer that is killed at any instant leaves a journal that can be read, and goes on with."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from jupyter_train.record import Event, RunState, fold
from jupyter_train.store import JournalCopy, JournalReader, JournalWriter, Store
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


KILLED_AGAIN_AND_AGAIN = f"""
import itertools, os, random, select, signal, sys, time
from dataclasses import asdict
from pathlib import Path
import numpy as np
from jupyter_train.record import Event, EventKind, RunSpec, pack_event
from jupyter_train.store import JournalCopy, JournalWriter, Store
from jupyter_train.store.liveness import this_moment, this_process

kind, root, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
choose = random.Random(rounds)
spec = RunSpec(run_id="{RUN}", name="killed", source="", ranks=1)

def event(n):
    payload = {{"columns": {{"loss": {{"step": np.arange(n, n + 50), "value": np.random.rand(50)}}}}}}
    told = EventKind.METRICS
    if n <= 3:
        told, payload = EventKind.STATE, {{"state": ("PENDING", "STARTING", "RUNNING")[n - 1]}}
        payload |= {{"spec": spec.to_dict(for_journal=True)}} if n == 1 else {{}}
    return Event(run_id="{RUN}", seq=n, attempt=1, rank=0, time=1.0, kind=told, payload=payload)

def journal(home, say):
    writer = JournalWriter(home / "journals" / "controller.sqlite", gather_s=0.001)
    for n in itertools.count(1):
        writer.append("{RUN}", [event(n)])
        if n % 20 == 0:
            assert writer.flush(60)
            say(n)

def copy(home, say):
    mark = asdict(this_process("20261122-145900-0badcafe", "1", this_moment()))
    def ask(after):
        has = after.get("{RUN}", 0)
        if has:
            say(has)
        return {{"mark": mark, "active": True, "runs": {{"{RUN}": [pack_event(event(has + n)) for n in range(1, 6)]}}}}
    JournalCopy("20261122-145900-0badcafe", origin="", root=home).update(ask)

def labels(home, say):
    writer = JournalWriter(home / "journals" / "controller.sqlite")
    writer.append("{RUN}", [event(n) for n in (1, 2, 3)])
    assert writer.flush(60)
    for n in itertools.count(1):
        Store(home).tag("{RUN}", {{"n": str(n)}})
        say(n)

for n in range(rounds):
    home = root / str(n)
    home.mkdir()
    told, says = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(told)
            globals()[kind](home, lambda seq: os.write(says, b"%d\\n" % seq))
        finally:
            os._exit(1)
    os.close(says)
    first = os.read(told, 100)
    time.sleep(choose.uniform(0, 0.02))  # anywhere within a transaction
    os.kill(pid, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    with os.fdopen(told, "rb") as rest:
        lines = (first + rest.read()).split(b"\\n")
    print(n, int(lines[-2]), flush=True)
"""


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such: a kill loses nothing that was written, and nobody waits for a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="jt-", dir=memory))
    yield folder
    shutil.rmtree(folder)


def killed_again_and_again(kind: str, root: Path, rounds: int) -> dict[Path, int]:
    """Homes whose writer was killed at some instant, with the number that it had promised to be on disk."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, kind, str(root), str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=110,
        check=True,
    )
    told = [line.split() for line in done.stdout.splitlines()]
    assert len(told) == rounds
    return {root / home: int(promised) for home, promised in told}


def are_whole_transactions(home: Path, path: Path, promised: int) -> list[Event]:
    events = JournalReader(path).events(RUN)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert len(events) >= promised
    (summary,) = JournalReader(path).summaries()
    assert summary.seq == events[-1].seq
    curves = fold(events).curves
    assert [v.step for v in summary.metrics.values()] == [c[0].steps[-1] for c in curves.values()]
    assert Store(home).problems == ()
    return events


def test_50_kills_9_leave_whole_transactions(quick_disk: Path) -> None:
    for home, promised in killed_again_and_again("journal", quick_disk, 50).items():
        path = home / "journals" / "controller.sqlite"
        events = are_whole_transactions(home, path, promised)
        (seen,) = Store(home).runs()
        assert seen.state is RunState.LOST
        assert "fell silent while the run was RUNNING" in seen.reason
        follower = JournalWriter(path)
        follower.append(RUN, [events[-1]])
        follower.close()
        assert len(JournalReader(path).events(RUN)) == len(events)


def test_kill_9_of_who_copies_leaves_a_copy_that_can_be_gone_on_with(quick_disk: Path) -> None:
    for home, promised in killed_again_and_again("copy", quick_disk, 8).items():
        copy = JournalCopy("20261122-145900-0badcafe", origin="", root=home)
        events = are_whole_transactions(home, copy.path, promised)
        asked: list[Mapping[str, int]] = []
        progress = copy.update(
            lambda after, asked=asked: asked.append(after) or {"runs": {}, "active": False}
        )
        assert progress is not None, "its lock went with it"
        assert asked == [{RUN: len(events)}]


def test_kill_9_while_a_label_is_written_leaves_the_labels_before_or_after_it(quick_disk: Path) -> None:
    for home, promised in killed_again_and_again("labels", quick_disk, 8).items():
        store = Store(home)
        (run,) = store.runs()
        assert store.problems == ()
        assert int(run.spec["tags"]["n"]) in (promised, promised + 1)
        store.rename(RUN, "after")
        assert store.runs()[0].name == "after"


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
