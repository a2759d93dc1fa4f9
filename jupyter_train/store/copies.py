"""Copies of journals that lie on other machines, made by whoever reads, beside the user's own journals.

A copy has the shape of a journal, and everything reads it as one. Asking is
the caller's affair: the store knows no network. What comes twice, in pieces
or from two processes at once is there once in the end.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from jupyter_train.errors import StoreError
from jupyter_train.home import RUN_ID, home, journals_folder, private_folder
from jupyter_train.record import unpack_event
from jupyter_train.store.backlog import Item, kept_for_summary
from jupyter_train.store.labels import FILE, Labels
from jupyter_train.store.liveness import HEARTBEAT_S, ControllerMark, Moment, this_moment
from jupyter_train.store.plan import journalled_bytes, planned
from jupyter_train.store.reader import JournalReader
from jupyter_train.store.rows import read_summary, write_batches, write_mark, write_summary
from jupyter_train.store.schema import open_for_writing
from jupyter_train.store.summary import RunSummary

_CONTROLLER = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_ALL = 2**62  #: a number above that of any event: of a deleted run nothing is wanted

Ask = Callable[[Mapping[str, int]], Mapping[str, Any]]
"""What the controller answers to the numbers up to which each run is on this disk: see ``train_journal``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a copy stands after a look at the controller."""

    events: int  #: that were new
    is_active: bool  #: runs go on there


class JournalCopy:
    """The copy of one controller's journal below ``root`` (default: the user's home); any process, one thread at a time.

    Args:
        controller: its id.
        origin: address of its scheduler, for people.
        root: the home.
        moment: now.

    Raises:
        ValueError: that is no id of a controller; nothing else may become a path.
    """

    def __init__(
        self,
        controller: str,
        *,
        origin: str,
        root: Path | None = None,
        moment: Callable[[], Moment] = this_moment,
    ) -> None:
        if not _CONTROLLER.fullmatch(controller):
            raise ValueError(f"{controller!r} is not the id of a controller")
        self.controller = controller
        self.root = root or home()
        self.path = journals_folder(self.root) / f"{controller}.copy.sqlite"
        self._origin = origin
        self._moment = moment

    @property
    def is_needed(self) -> bool:
        """Whether the journal itself is not on this disk."""
        original = JournalReader(journals_folder(self.root) / f"{self.controller}.sqlite")
        try:
            mark = original.mark()
        except StoreError:
            return not original.path.exists()  # damaged: a copy helps no less than no copy would
        return mark is None or mark.controller != self.controller

    def update(self, ask: Ask) -> Progress | None:
        """Ask until there is nothing more; None where another process is at it.

        The last question says what is on disk now, and so acknowledges it.

        Raises:
            StoreError: the copy, or what is said of runs, cannot be read or is of a newer version.
            OSError, sqlite3.Error: the disk refuses.
            ValueError: the controller answers what is no answer.
        """
        with self._locked() as is_ours:
            if not is_ours:
                return None
            has = {summary.run_id: summary.seq for summary in JournalReader(self.path).summaries()}
            deleted = Labels(self.root / FILE).read()
            has |= {run_id: _ALL for run_id, label in deleted.items() if label.deleted}
            new = 0
            while True:
                reply = ask(has)
                runs = {run_id: events for run_id, events in reply["runs"].items() if has.get(run_id) != _ALL}
                is_active = bool(reply["active"])
                if not runs:
                    if is_active:
                        self._beat(reply["mark"])
                    return Progress(events=new, is_active=is_active)
                before = dict(has)
                has |= self._write(runs, reply["mark"])
                new += sum(map(len, runs.values()))
                if has == before:
                    raise ValueError(f"the controller {self.controller} sends what is there already")

    def _write(self, runs: Mapping[str, list[bytes]], told: Mapping[str, Any]) -> dict[str, int]:
        """One transaction; the number of the newest event of each run."""
        now = self._moment()
        items = {run_id: list(_items(run_id, events)) for run_id, events in runs.items()}
        with closing(open_for_writing(self.path)) as db:
            # A controller may end once this has been acknowledged: it must outlive a power cut.
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            has = {}
            for run_id, of_run in items.items():
                before = read_summary(db, run_id) or RunSummary(run_id=run_id)
                after, rows = planned(of_run, before, now=now.unix_s)
                if rows:
                    write_batches(db, rows)
                    write_summary(db, after)
                has[run_id] = after.seq
            write_mark(db, self._mark(told, now))
            db.execute("COMMIT")
        return has

    def _beat(self, told: Mapping[str, Any]) -> None:
        """The controller lives: say so where that was long ago."""
        known, now = JournalReader(self.path).mark(), self._moment()
        if known is None:
            return
        is_fresh = known.beat_boot == now.boot and 0 <= now.steady_s - (known.beat_s or 0.0) < HEARTBEAT_S
        if not is_fresh:
            with closing(open_for_writing(self.path)) as db:
                write_mark(db, self._mark(told, now))

    def _mark(self, told: Mapping[str, Any], now: Moment) -> ControllerMark:
        """The controller's own mark, heard of here and now: the clocks of two machines differ."""
        names = {field.name for field in fields(ControllerMark)}
        mark = ControllerMark(**{str(key): value for key, value in told.items() if key in names})
        return replace(
            mark,
            controller=self.controller,
            heartbeat=now.unix_s,
            beat_boot=now.boot,
            beat_s=now.steady_s,
            origin=self._origin,
        )

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether no other process copies this journal now. It would do no harm, only the same work twice."""
        private_folder(self.path.parent)
        handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:
                pass  # a network disk without locks
            yield True
        finally:
            os.close(handle)


def _items(run_id: str, events: list[bytes]) -> Iterator[Item]:
    if not RUN_ID.fullmatch(run_id):
        raise ValueError(f"{run_id!r} is not the id of a run")
    for data in events:
        event = unpack_event(data)
        if event.run_id != run_id or event.seq < 1:
            raise ValueError(f"not a numbered event of run {run_id}: {event.run_id} number {event.seq}")
        event, packed = journalled_bytes(event, bytes(data))
        yield Item(run_id=run_id, seq=event.seq, data=packed, event=kept_for_summary(event))
