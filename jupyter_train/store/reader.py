"""Reads one journal, also while another process writes it. Nothing in it is ever unpickled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyter_train.record import Event, split_events, unpack_event, unpack_events
from jupyter_train.store.liveness import ControllerMark
from jupyter_train.store.rows import read_batches, read_mark, read_sizes, read_summaries
from jupyter_train.store.schema import journal_told, open_for_reading
from jupyter_train.store.summary import RunSummary


class JournalReader:
    """Reads the journal at ``path``; each call opens and closes it, so there is nothing to close.

    All methods may be called from any thread and raise StoreTooNew or
    StoreDamaged, with the path, where the file cannot be read. A journal that
    is gone is an empty one.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def mark(self) -> ControllerMark | None:
        """Who writes it; None where it has no tables yet."""
        with self._opened() as db:
            return None if db is None else read_mark(db)

    def mark_and_summaries(self) -> tuple[ControllerMark | None, list[RunSummary]]:
        """Both, as of one moment."""
        with self._opened() as db:
            if db is None:
                return None, []
            db.execute("BEGIN")
            return read_mark(db), list(read_summaries(db))

    def summaries(self) -> list[RunSummary]:
        """A row per run, as the journal has it (the controller's silence is not looked at)."""
        with self._opened() as db:
            return [] if db is None else list(read_summaries(db))

    def summary(self, run_id: str) -> RunSummary | None:
        """The row of one run."""
        with self._opened() as db:
            return None if db is None else next(read_summaries(db, run_id), None)

    def sizes(self) -> dict[str, int]:
        """Bytes of the events of each run."""
        with self._opened() as db:
            return {} if db is None else read_sizes(db)

    def packed(self, run_id: str, after: int = 0, *, at_most_bytes: int | None = None) -> list[bytes]:
        """Events of ``run_id`` numbered above ``after``, in order, each in bytes.

        ``at_most_bytes`` stops after the event that reaches it: ask again from its number.
        """
        out: list[bytes] = []
        size = 0
        with self._opened() as db:
            for batch in () if db is None else read_batches(db, run_id, after):
                for piece in split_events(batch.data):
                    # Only a batch that begins at or below ``after`` can hold what is not wanted.
                    if batch.first_seq <= after and unpack_event(piece).seq <= after:
                        continue
                    out.append(bytes(piece))
                    size += len(piece)
                    if at_most_bytes is not None and size >= at_most_bytes:
                        return out
        return out

    def events(self, run_id: str, after: int = 0) -> list[Event]:
        """Events of ``run_id`` numbered above ``after``, in order."""
        with self._opened() as db:
            return [
                event
                for batch in (() if db is None else read_batches(db, run_id, after))
                for event in unpack_events(batch.data)
                if event.seq > after
            ]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        db = open_for_reading(self.path)
        try:
            yield db
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise journal_told(self.path, error) from error
        finally:
            if db is not None:
                db.close()
