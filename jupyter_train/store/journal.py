"""The writer of a journal: takes numbered events from the controller, puts them on disk in groups.

The controller lives in the scheduler's event loop, which must never wait for a
disk: ``append`` only puts events in a bounded queue, and a thread of the
writer's own commits what has gathered. Reading is in :mod:`jupyter_train.store.reader`.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jupyter_train._version import __version__
from jupyter_train.errors import StoreError
from jupyter_train.record import Event, pack_event
from jupyter_train.store.backlog import Backlog, Gap, Item
from jupyter_train.store.liveness import HEARTBEAT_S, this_moment, this_process
from jupyter_train.store.plan import by_run, journalled, left_out, planned
from jupyter_train.store.rows import Batch, read_summary, write_batches, write_beat, write_mark, write_summary
from jupyter_train.store.schema import open_for_writing
from jupyter_train.store.summary import RunSummary

logger = logging.getLogger(__name__)

GATHER_S = 0.05
BACKLOG_BYTES = 64 * 2**20
ROOM_SHARE = 4  #: of the backlog's bound: beyond one such part, those who have much to tell should wait
_TRANSACTION_BYTES = 8 * 2**20
_RETRY_S = (0.1, 0.3, 1.0, 3.0)

Connect = Callable[[Path], sqlite3.Connection]


class JournalWriter:
    """The only writer of the journal at ``path``, which is made where it is missing.

    Where the disk refuses (full, an error, locked by somebody), events wait in
    memory and are tried again; beyond ``backlog_bytes`` metrics, usage and
    logs are left out, and a remark in the run's log says which. The run goes on.

    Raises:
        StoreTooNew, StoreDamaged: something else lies at ``path``.
        OSError, sqlite3.Error: no journal can be made there.
    """

    def __init__(
        self,
        path: Path,
        *,
        backlog_bytes: int = BACKLOG_BYTES,
        gather_s: float = GATHER_S,
        heartbeat_s: float = HEARTBEAT_S,
        connect: Connect = open_for_writing,
    ) -> None:
        self.path = Path(path)
        self._gather_s = gather_s
        self._heartbeat_s = heartbeat_s
        self._connect = connect
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._backlog = Backlog(backlog_bytes)
        self._written = 0  #: of the backlog's ``added``: in the file, or given up
        self._committed: dict[str, int] = {}
        self._hurry = 0  #: callers of flush that wait
        self._trouble = ""
        self._give_up_at: float | None = None  #: monotonic; set once closing
        # The thread's own, after the start:
        self._db: sqlite3.Connection | None = self._opened()
        self._summaries: dict[str, RunSummary] = {}
        self._thread = threading.Thread(
            target=self._run, name=f"jupyter-train-journal-{self.path.stem}", daemon=True
        )
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why nothing can be written at the moment, as a sentence; "" while all is well."""
        with self._changed:
            return self._trouble

    @property
    def has_room(self) -> bool:
        """Whether more may come without being held back.

        True also while the disk fails: what is left out then is said, and no run has to wait for a disk.
        """
        with self._changed:
            return bool(self._trouble) or self._backlog.size_bytes < self._backlog.bound_bytes // ROOM_SHARE

    def append(self, run_id: str, events: Sequence[Event], packed: Sequence[bytes] | None = None) -> None:
        """Hand over ``events`` of one run, numbered from 1 without a break; never waits for the disk.

        Any thread. ``packed`` are the same events in bytes, where the caller
        has them already. What was handed over before (by its number) is
        written once.

        Raises:
            ValueError: an event is of another run or has no number; nothing is taken then.
            TypeError: an event holds what cannot be packed; nothing is taken then.
            RuntimeError: the writer is closed.
        """
        if packed is not None and len(packed) != len(events):
            raise ValueError(f"{len(events)} events, but {len(packed)} in bytes")
        ready = []
        for at, given in enumerate(events):
            if given.run_id != run_id or given.seq < 1:
                raise ValueError(f"not a numbered event of run {run_id}: {given.run_id} number {given.seq}")
            event = journalled(given)
            ready.append((event, packed[at] if packed is not None and event is given else pack_event(event)))
        with self._changed:
            if self._give_up_at is not None:
                raise RuntimeError("the journal is closed")
            was_empty = not self._backlog
            for event, data in ready:
                self._backlog.add(event, data)
            if was_empty:
                self._changed.notify_all()

    def committed(self, run_id: str) -> int:
        """Number of the newest event of ``run_id`` that is in the file (or given up), 0 if there is none."""
        with self._changed:
            return self._committed.get(run_id, 0)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait up to ``timeout`` seconds until all that was handed over is in the file; whether it is.

        Not for the scheduler's event loop: it waits for the disk.
        """
        with self._changed:
            self._hurry += 1
            self._changed.notify_all()
            try:
                target = self._backlog.added + self._backlog.open_gaps
                return self._changed.wait_for(lambda: self._written >= target, timeout)
            finally:
                self._hurry -= 1

    def close(self, timeout: float = 5.0) -> None:
        """Write what is left, within ``timeout`` seconds if the disk lets us; twice does nothing.

        A journal in which no run ever was is removed.
        """
        with self._changed:
            if self._give_up_at is None:
                self._give_up_at = time.monotonic() + timeout
            self._changed.notify_all()
        self._thread.join(timeout + 2 * self._gather_s + 5.0)

    # The writer's thread from here on.

    def _run(self) -> None:
        beat_at = time.monotonic() + self._heartbeat_s
        batch: list[Item | Gap] = []
        failures = 0
        while True:
            if not batch:
                batch = self._next_batch(beat_at)
            if not batch and self._is_closing():
                break
            try:
                if self._db is None:
                    self._db = self._opened()
                if batch:
                    summaries = self._write(self._db, batch)
                    self._note_written(batch, summaries)
                    batch = []
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + self._heartbeat_s
                    if self._has_active_run():
                        write_beat(self._db, this_moment())
                if failures:
                    failures = 0
                    self._note_recovery()
            except Exception as error:  # whatever it is: this thread is the journal of every run
                if not _may_pass(error):
                    logger.exception("events cannot be written to %s and are left out", self.path)
                    batch = self._left_out(batch, error)
                    continue
                self._note_failure(error)
                if self._is_closing(past_deadline=True):
                    logger.error("%s was closed while it could not be written: %s", self.path, error)
                    break
                self._rest(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1
        self._end()

    def _opened(self) -> sqlite3.Connection:
        db = self._connect(self.path)
        try:
            write_mark(db, this_process(self.path.stem, __version__, this_moment()))
        except BaseException:
            db.close()
            raise
        return db

    def _left_out(self, batch: list[Item | Gap], error: Exception) -> list[Item | Gap]:
        """Gaps in the place of ``batch``, which no second attempt would get to disk; nothing for mere gaps."""
        with self._changed:
            self._backlog.release(batch)
            if not any(isinstance(item, Item) for item in batch):
                self._written = self._backlog.taken
                self._changed.notify_all()
                return []
        return left_out(batch, why=f"{type(error).__name__}: {error}")

    def _next_batch(self, until: float) -> list[Item | Gap]:
        with self._changed:
            self._changed.wait_for(
                lambda: self._backlog or self._give_up_at is not None, max(0.0, until - time.monotonic())
            )
            if not self._backlog:
                return []
            # One commit for all that comes within a blink.
            self._changed.wait_for(lambda: self._hurry or self._give_up_at is not None, self._gather_s)
            return self._backlog.take(_TRANSACTION_BYTES)

    def _write(self, db: sqlite3.Connection, batch: list[Item | Gap]) -> list[RunSummary]:
        """One transaction: the events, and the summary of each of their runs."""
        batches: list[Batch] = []
        summaries: list[RunSummary] = []
        for run_id, items in by_run(batch):
            before = self._summaries.get(run_id) or read_summary(db, run_id) or RunSummary(run_id=run_id)
            after, rows = planned(items, before, now=time.time())
            if rows:
                summaries.append(after)
                batches.extend(rows)
        ends = any(s.state is not None and s.state.is_terminal for s in summaries)
        # In WAL mode NORMAL outlives kill -9, not a power cut: the end of a run is worth a sync.
        db.execute(f"PRAGMA synchronous = {'FULL' if ends else 'NORMAL'}")
        db.execute("BEGIN IMMEDIATE")
        try:
            write_batches(db, batches)
            for summary in summaries:
                write_summary(db, summary)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return summaries

    def _note_written(self, batch: list[Item | Gap], summaries: list[RunSummary]) -> None:
        for summary in summaries:
            if summary.state is not None and summary.state.is_terminal:
                self._summaries.pop(summary.run_id, None)  # late logs are rare: read again then
            else:
                self._summaries[summary.run_id] = summary
        with self._changed:
            self._backlog.release(batch)
            self._written = self._backlog.taken
            for item in batch:
                self._committed[item.run_id] = max(item.seq, self._committed.get(item.run_id, 0))
            self._changed.notify_all()

    def _note_recovery(self) -> None:
        with self._changed:
            self._trouble = ""
        logger.warning("%s can be written again", self.path)

    def _note_failure(self, error: Exception) -> None:
        with self._changed:
            if not self._trouble:
                logger.error("%s cannot be written, its events wait in memory: %s", self.path, error)
            self._trouble = f"{self.path} cannot be written ({error}); new events wait in memory."
        db, self._db = self._db, None  # after an I/O error SQLite's connection may stay broken: begin anew
        if db is not None:
            try:
                db.close()
            except sqlite3.Error:
                pass  # it is given up in any case

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._give_up_at is not None, seconds)
        if self._is_closing():
            time.sleep(0.05)

    def _is_closing(self, *, past_deadline: bool = False) -> bool:
        with self._changed:
            if self._give_up_at is None:
                return False
            return not past_deadline or time.monotonic() >= self._give_up_at

    def _has_active_run(self) -> bool:
        return any(s.state is not None for s in self._summaries.values())

    def _end(self) -> None:
        db, self._db = self._db, None
        if db is None:
            return
        try:
            used = db.execute("SELECT EXISTS (SELECT 1 FROM batches)").fetchone()[0]
            db.execute("UPDATE controller SET closed = ?, heartbeat = ?", (time.time(), time.time()))
            db.close()
            if not used:
                for suffix in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except (sqlite3.Error, OSError) as error:
            logger.error("%s could not be closed in order: %s", self.path, error)


def _may_pass(error: Exception) -> bool:
    """Whether a later attempt may succeed: the disk, a lock, a file that somebody puts right."""
    # A damaged file raises DatabaseError itself; its other kinds are about the values that we pass.
    known = (OSError, StoreError, sqlite3.OperationalError, sqlite3.InternalError)
    return isinstance(error, known) or type(error) is sqlite3.DatabaseError
