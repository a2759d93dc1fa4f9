"""The writer: nothing it took is lost while the disk works, and it never makes its caller wait."""

from __future__ import annotations

import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_train.errors import StoreDamaged, StoreTooNew
from jupyter_train.record import pack_event, unpack_event
from jupyter_train.store import JournalReader, JournalWriter
from jupyter_train.store.rows import write_batches
from jupyter_train.store.schema import VERSION, open_for_writing
from tests.store.conftest import Story


def texts(path: Path, run: Story) -> list[str]:
    return [e.payload["text"] for e in JournalReader(path).events(run.run_id) if e.kind == "log"]


def test_what_was_appended_is_read_back_in_order(
    writer: JournalWriter, path: Path, story: Callable[..., Story]
) -> None:
    run = story()
    run.states("PENDING", "STARTING", "RUNNING")
    for step in range(200):
        run.loss(step, step / 2)
    for event in run.events:
        writer.append(run.run_id, [event])
    assert writer.flush()
    packed = JournalReader(path).packed(run.run_id)
    assert packed == [pack_event(e) for e in run.events]
    assert [e.seq for e in JournalReader(path).events(run.run_id, after=150)] == list(range(151, 204))
    assert writer.committed(run.run_id) == 203
    assert writer.committed("another") == 0


def test_events_that_come_within_a_blink_share_a_row(path: Path, story: Callable[..., Story]) -> None:
    writer, run = JournalWriter(path, gather_s=60.0), story()
    for step in range(50):
        writer.append(run.run_id, [run.loss(step, 1.0)])
    assert writer.flush()
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT first_seq, last_seq FROM batches").fetchall()
    db.close()
    writer.close()
    # The first flush may find the thread not yet gathering: two commits at most.
    assert len(rows) <= 2
    assert rows[0][0] == 1
    assert rows[-1][1] == 50


def test_large_batches_become_rows_of_about_a_megabyte(
    writer: JournalWriter, path: Path, story: Callable[..., Story]
) -> None:
    run = story()
    writer.append(run.run_id, [run.prints("x" * 300_000) for _ in range(10)])
    assert writer.flush()
    with sqlite3.connect(path) as db:
        sizes = [size for (size,) in db.execute("SELECT length(data) FROM batches")]
    db.close()
    assert len(sizes) == 3
    assert max(sizes) < 1_300_000
    assert len(JournalReader(path).events(run.run_id)) == 10


def test_bytes_that_the_caller_has_are_taken_as_they_are(
    writer: JournalWriter, path: Path, story: Callable[..., Story]
) -> None:
    run = story()
    event = run.prints("written twice")
    writer.append(run.run_id, [event], [pack_event(event)])
    assert writer.flush()
    assert texts(path, run) == ["written twice"]
    with pytest.raises(ValueError, match="1 events, but 0 in bytes"):
        writer.append(run.run_id, [run.prints("x")], [])


def test_what_comes_twice_is_written_once(path: Path, story: Callable[..., Story]) -> None:
    run = story()
    run.states("PENDING", "STARTING", "RUNNING")
    writer = JournalWriter(path)
    writer.append(run.run_id, run.events)
    assert writer.flush()
    writer.append(run.run_id, run.events)
    writer.append(run.run_id, [*run.events, run.prints("new")])
    writer.close()
    again = JournalWriter(path)  # a writer that knows the run from the file only
    again.append(run.run_id, run.events)
    again.close()
    assert [e.seq for e in JournalReader(path).events(run.run_id)] == [1, 2, 3, 4]


def test_a_writer_goes_on_where_another_ended(path: Path, story: Callable[..., Story]) -> None:
    run = story()
    for states in (["PENDING", "STARTING"], ["RUNNING", "SUCCEEDED"]):
        writer = JournalWriter(path)
        writer.append(run.run_id, run.states(*states))
        writer.close()
    (summary,) = JournalReader(path).summaries()
    assert (summary.name, summary.state, summary.seq) == ("digits", "SUCCEEDED", 4)


def test_the_summary_is_as_new_as_the_events(
    writer: JournalWriter, path: Path, story: Callable[..., Story]
) -> None:
    run, other = story(1), story(2, name="other")
    for step in range(30):
        writer.append(run.run_id, [run.loss(step, 1.0)])
        writer.append(other.run_id, [other.loss(step, 2.0)])
        assert writer.flush()
        for s in JournalReader(path).summaries():
            assert s.metrics["loss"].step == step
            assert s.seq == step + 1


def test_environment_variables_never_reach_the_file(path: Path, story: Callable[..., Story]) -> None:
    run = story()
    spec = replace(run.spec, environment={"TOKEN": "pssst-secret"}).to_dict()
    event = run.state("PENDING", spec=spec)
    writer = JournalWriter(path)
    writer.append(run.run_id, [event], [pack_event(event)])
    assert writer.flush()
    for file in path.parent.iterdir():
        assert b"pssst-secret" not in file.read_bytes()
    writer.close()
    assert b"pssst-secret" not in path.read_bytes()


def test_odd_text_is_stored(writer: JournalWriter, path: Path, story: Callable[..., Story]) -> None:
    run = story(name="caf\udce9 \0 ✓", ranks=2**80)
    writer.append(run.run_id, [run.state("PENDING"), run.state("CANCELLED", reason="\udc80")])
    assert writer.flush()
    (summary,) = JournalReader(path).summaries()
    assert summary.name == "caf? \0 ✓"
    assert summary.ranks == 2**63 - 1
    assert JournalReader(path).events(run.run_id)[0].payload["spec"]["name"] == "caf\udce9 \0 ✓"


def test_unnumbered_events_and_those_of_another_run_are_refused(
    writer: JournalWriter, path: Path, story: Callable[..., Story]
) -> None:
    run, other = story(1), story(2)
    good = run.prints("x")
    for bad in (replace(good, seq=0), other.prints("x")):
        with pytest.raises(ValueError, match="not a numbered event of run"):
            writer.append(run.run_id, [good, bad])
    with pytest.raises(TypeError, match="an event cannot carry a object"):
        writer.append(run.run_id, [good, run.tell("log", text=object())])
    assert writer.flush()
    assert not JournalReader(path).events(run.run_id)


def test_appending_does_not_wait_while_the_disk_hangs(path: Path, story: Callable[..., Story]) -> None:
    run = story()
    entered, go_on = threading.Event(), threading.Event()

    def stuck(where: Path) -> sqlite3.Connection:
        db = open_for_writing(where)

        def wait(*_: object) -> int:
            entered.set()
            go_on.wait(60)
            return 0

        db.set_progress_handler(wait, 1)
        return db

    first = JournalWriter(path)  # makes the tables without being stuck
    first.append(run.run_id, [run.state("PENDING")])
    first.close()
    go_on.set()
    writer = JournalWriter(path, connect=stuck)
    entered.clear()
    go_on.clear()
    writer.append(run.run_id, [run.prints("first")])
    assert entered.wait(10)
    assert writer.has_room
    for n in range(500):
        writer.append(run.run_id, [run.prints(str(n))])
    assert not writer.flush(timeout=0.05)
    go_on.set()
    writer.close()
    assert texts(path, run) == ["first", *map(str, range(500))]


def test_a_journal_that_is_behind_has_no_room_until_it_has_caught_up(
    path: Path, story: Callable[..., Story]
) -> None:
    run = story()
    writer = JournalWriter(path, gather_s=30.0, backlog_bytes=40_000)
    try:
        writer.append(run.run_id, [run.state("PENDING"), run.prints("x" * 8_000)])
        assert writer.has_room
        writer.append(run.run_id, [run.prints("x" * 8_000)])
        assert not writer.has_room
        assert writer.flush(timeout=10)
        assert writer.has_room
    finally:
        writer.close()


def test_many_threads_may_append(writer: JournalWriter, path: Path, story: Callable[..., Story]) -> None:
    runs = [story(n) for n in range(4)]

    def work(run: Story) -> None:
        for n in range(200):
            writer.append(run.run_id, [run.prints(str(n))])

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush()
    for run in runs:
        assert texts(path, run) == [str(n) for n in range(200)]


def test_only_its_owner_may_read_it(writer: JournalWriter, path: Path, story: Callable[..., Story]) -> None:
    run = story()
    writer.append(run.run_id, [run.state("PENDING")])
    assert writer.flush()
    files = sorted(f.name for f in path.parent.iterdir())
    assert path.name in files
    assert path.name + "-wal" in files
    assert {stat.S_IMODE(f.stat().st_mode) for f in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_writers_thread_has_a_name_and_ends_with_it(path: Path) -> None:
    before = set(threading.enumerate())
    writer = JournalWriter(path)
    (thread,) = set(threading.enumerate()) - before
    assert thread.name == "jupyter-train-journal-controller-1"
    writer.close()
    writer.close()
    assert not thread.is_alive()


def test_a_closed_writer_takes_nothing(path: Path, story: Callable[..., Story]) -> None:
    writer, run = JournalWriter(path), story()
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.append(run.run_id, [run.prints("x")])


def test_a_journal_without_a_run_leaves_no_file(path: Path) -> None:
    JournalWriter(path).close()
    assert not list(path.parent.iterdir())


def test_close_writes_what_is_left(path: Path, story: Callable[..., Story]) -> None:
    writer, run = JournalWriter(path, gather_s=60.0), story()
    writer.append(run.run_id, [run.prints("at the last moment")])
    writer.close()
    assert texts(path, run) == ["at the last moment"]


def test_the_heartbeat_goes_on_while_a_run_does(path: Path, story: Callable[..., Story]) -> None:
    writer, run, reader = JournalWriter(path, heartbeat_s=0.02), story(), JournalReader(path)

    def beat() -> float:
        mark = reader.mark()
        assert mark is not None
        return mark.heartbeat

    def moves(within_s: float) -> bool:
        before, deadline = beat(), time.monotonic() + within_s
        while time.monotonic() < deadline:
            if beat() != before:
                return True
            time.sleep(0.01)
        return False

    assert not moves(within_s=0.2)  # an idle controller leaves the disk alone
    writer.append(run.run_id, run.states("PENDING", "STARTING"))
    assert writer.flush()
    assert moves(within_s=20.0)
    writer.append(run.run_id, run.states("RUNNING", "SUCCEEDED"))
    assert writer.flush()
    beat()
    writer.close()
    mark = reader.mark()
    assert mark is not None
    assert mark.closed is not None


def test_a_journal_of_a_newer_version_is_left_alone(path: Path, story: Callable[..., Story]) -> None:
    writer, run = JournalWriter(path), story()
    writer.append(run.run_id, [run.prints("x")])
    writer.close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    for use in (JournalWriter, lambda p: JournalReader(p).summaries()):
        with pytest.raises(
            StoreTooNew,
            match=rf"journal version {VERSION + 1}; this one reads up to {VERSION}.*pip install -U",
        ):
            use(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM batches").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize("content", [b"this is not a database at all, not even nearly one" * 30, None])
def test_what_is_no_journal_is_not_overwritten(path: Path, content: bytes | None) -> None:
    path.parent.mkdir(parents=True)
    if content is None:
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    for use in (JournalWriter, lambda p: JournalReader(p).summaries()):
        with pytest.raises(StoreDamaged, match=r"controller-1\.sqlite"):
            use(path)
    assert path.read_bytes() == before


def test_a_reader_of_nothing_reads_nothing(path: Path) -> None:
    reader = JournalReader(path)
    assert reader.mark() is None
    assert [*reader.summaries(), *reader.events("x"), *reader.packed("x")] == []
    assert reader.summary("x") is None
    path.parent.mkdir(parents=True)
    path.touch()  # the writer was killed before its first transaction
    assert reader.mark_and_summaries() == (None, [])


def test_packed_events_come_in_portions(
    writer: JournalWriter, path: Path, story: Callable[..., Story]
) -> None:
    run, reader = story(), JournalReader(path)
    writer.append(run.run_id, [run.prints("x" * 1000) for _ in range(20)])
    assert writer.flush()
    seen: list[int] = []
    while portion := reader.packed(run.run_id, after=seen[-1] if seen else 0, at_most_bytes=3000):
        assert len(portion) <= 3
        seen += [unpack_event(p).seq for p in portion]
    assert seen == list(range(1, 21))


def test_damaged_bytes_in_a_row_are_named_with_their_journal(
    writer: JournalWriter, path: Path, story: Callable[..., Story]
) -> None:
    run = story()
    writer.append(run.run_id, [run.prints("x")])
    assert writer.flush()
    writer.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE batches SET data = replace(data, '\"log\"', '\"gol\"')")
    db.execute("UPDATE batches SET data = CAST(data AS BLOB)")
    db.commit()
    db.close()
    with pytest.raises(StoreDamaged, match=r"controller-1\.sqlite cannot be read"):
        JournalReader(path).events(run.run_id)


def test_a_fault_of_our_own_loses_its_batch_only(
    path: Path, story: Callable[..., Story], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = story()
    writer = JournalWriter(path)

    def faulty(db: sqlite3.Connection, batches: list[object]) -> None:
        if any(b"poison" in b.data for b in batches):  # type: ignore[attr-defined]
            raise ZeroDivisionError("a fault")
        write_batches(db, batches)  # type: ignore[arg-type]

    monkeypatch.setattr("jupyter_train.store.journal.write_batches", faulty)
    for text in ("before", "poison", "after"):
        writer.append(run.run_id, [run.prints(text)])
        assert writer.flush()
    writer.close()
    told = "1 event (number 2) could not be recorded: ZeroDivisionError: a fault."
    assert texts(path, run) == ["before", told, "after"]
