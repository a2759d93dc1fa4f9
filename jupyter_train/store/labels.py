"""What a reader says of runs: another name, tags, and that they are deleted.

It lies in a file of the reader's own, beside the journals and never in one: a
journal belongs to its controller, and the next copy of a remote one would
undo what was written into an earlier copy.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jupyter_train.errors import StoreDamaged, StoreError
from jupyter_train.home import private_folder
from jupyter_train.record import RunView
from jupyter_train.store.schema import LOCK_WAIT_S, check_tables, open_for_reading
from jupyter_train.store.summary import RunSummary, from_json, to_json

VERSION = 1
APPLICATION_ID = 0x4A544C42  # "JTLB"
FILE = "labels.sqlite"

_TABLE = f"""
CREATE TABLE labels (
    run_id   TEXT PRIMARY KEY,
    name     TEXT,
    tags     TEXT NOT NULL,
    deleted  REAL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is said of one run."""

    name: str | None = None  #: None: as it was submitted
    tags: Mapping[str, str | None] = field(
        default_factory=dict
    )  #: over those it was submitted with; None: gone
    deleted: float | None = None  #: unix time

    def on_summary(self, summary: RunSummary) -> RunSummary:
        """``summary`` with this said of it; pure."""
        if self.name is None and not self.tags:
            return summary
        name = summary.name if self.name is None else self.name
        submitted = summary.spec.get("tags")
        tags = self._over(submitted if isinstance(submitted, Mapping) else {})
        return replace(summary, name=name, spec={**summary.spec, "name": name, "tags": tags})

    def on_view(self, view: RunView) -> RunView:
        """``view`` with this said of it; pure."""
        if view.spec is None or (self.name is None and not self.tags):
            return view
        name = view.spec.name if self.name is None else self.name
        return replace(view, spec=replace(view.spec, name=name, tags=self._over(view.spec.tags)))

    def _over(self, submitted: Mapping[str, Any]) -> dict[str, str]:
        merged = {**submitted, **self.tags}
        return {str(key): str(value) for key, value in merged.items() if value is not None}


class Labels:
    """The labels in the file at ``path``; any thread, any process. Each call opens and closes it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def read(self) -> dict[str, Label]:
        """What is said, by run id.

        Raises:
            StoreTooNew, StoreDamaged: the file cannot be read.
        """
        db = open_for_reading(self.path, check=_check, told=_told)
        if db is None:
            return {}
        with closing(db):
            try:
                rows = db.execute("SELECT run_id, name, tags, deleted FROM labels").fetchall()
                return {
                    str(run_id): Label(name=name, tags=dict(from_json(tags)), deleted=deleted)
                    for run_id, name, tags, deleted in rows
                }
            except (sqlite3.Error, ValueError, TypeError) as error:
                raise _told(self.path, error) from error

    def change(self, run_ids: Iterable[str], edit: Callable[[Label], Label]) -> None:
        """Say something else of these runs, all in one transaction.

        Raises:
            StoreTooNew, StoreDamaged: the file cannot be read.
            StoreError: it cannot be written.
        """
        try:
            with closing(self._opened()) as db:
                db.execute("BEGIN IMMEDIATE")
                if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in filter(str.strip, _TABLE.split(";")):
                        db.execute(statement)
                _check(db, self.path)
                for run_id in run_ids:
                    row = db.execute(
                        "SELECT name, tags, deleted FROM labels WHERE run_id = ?", (run_id,)
                    ).fetchone()
                    before = (
                        Label()
                        if row is None
                        else Label(name=row[0], tags=dict(from_json(row[1])), deleted=row[2])
                    )
                    after = edit(before)
                    db.execute(
                        "INSERT OR REPLACE INTO labels (run_id, name, tags, deleted) VALUES (?, ?, ?, ?)",
                        (run_id, after.name, to_json(after.tags), after.deleted),
                    )
                db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"names, tags and deletions cannot be written to {self.path}: {error}."
            ) from error
        except OSError as error:
            why = error.strerror or error
            raise StoreError(f"names, tags and deletions cannot be written to {self.path}: {why}.") from error
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise _told(self.path, error) from error

    def _opened(self) -> sqlite3.Connection:
        private_folder(self.path.parent)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # No WAL: the home may lie on a network disk, and what people say of runs is little.
        db = sqlite3.connect(self.path, timeout=LOCK_WAIT_S, isolation_level=None)
        db.execute("PRAGMA trusted_schema = OFF")
        return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    foreign = "is not a file of labels of jupyter_train; move it away."
    check_tables(db, path, application=APPLICATION_ID, newest=VERSION, foreign=foreign, what="labels")


def _told(path: Path, error: Exception) -> StoreError:
    return StoreDamaged(
        f"{path} cannot be read: {error}. Names and tags that were given to runs later are not shown, "
        "and deleted runs may be; move the file away to begin anew."
    )
