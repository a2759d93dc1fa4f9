"""The tables of one journal, and how a connection to it is opened.

A journal is an SQLite file in WAL mode with one writer. Readers in other
processes see whole transactions only, whatever happens to the writer.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from jupyter_train.errors import StoreDamaged, StoreError, StoreTooNew
from jupyter_train.home import private_folder

VERSION = 2  #: of the tables; ``PRAGMA user_version``
APPLICATION_ID = 0x4A54524E  # "JTRN": tells our files from any other SQLite file
LOCK_WAIT_S = 5.0

_WAYS_TO_READ = (
    "mode=ro",
    # The writer was killed in a transaction outside WAL mode (while it made the file, or on a disk that cannot have
    # WAL): what is half done has to be rolled back first, and that is writing.
    "mode=rw",
    # In a folder that we may not write to (a copy, another user's) the files that WAL needs cannot be made; with none
    # of them there everything is in the main file, and SQLite may read that alone.
    "mode=ro&immutable=1",
)

_TABLES = f"""
CREATE TABLE controller (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    controller     TEXT NOT NULL,
    version        TEXT NOT NULL,
    hostname       TEXT NOT NULL,
    boot           TEXT NOT NULL,
    pid            INTEGER NOT NULL,
    process_start  INTEGER,
    heartbeat      REAL NOT NULL,
    closed         REAL,
    beat_boot      TEXT NOT NULL DEFAULT '',
    beat_s         REAL,
    origin         TEXT NOT NULL DEFAULT ''
);
CREATE TABLE runs (
    run_id         TEXT PRIMARY KEY,
    seq            INTEGER NOT NULL,
    name           TEXT NOT NULL,
    state          TEXT,
    reason         TEXT NOT NULL,
    attempt        INTEGER NOT NULL,
    ranks          INTEGER NOT NULL,
    started        REAL,
    running_since  REAL,
    ended          REAL,
    metrics        TEXT NOT NULL,
    session        TEXT NOT NULL,
    notebook       TEXT NOT NULL,
    cluster        TEXT NOT NULL,
    spec           TEXT NOT NULL
);
CREATE TABLE batches (
    run_id         TEXT NOT NULL,
    first_seq      INTEGER NOT NULL,
    last_seq       INTEGER NOT NULL,
    data           BLOB NOT NULL,
    PRIMARY KEY (run_id, last_seq)
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

#: What makes tables of a version those of the next one, in one transaction for all that are due.
_MIGRATIONS = {
    1: """
ALTER TABLE controller ADD COLUMN beat_boot TEXT NOT NULL DEFAULT '';
ALTER TABLE controller ADD COLUMN beat_s REAL;
ALTER TABLE controller ADD COLUMN origin TEXT NOT NULL DEFAULT '';
""",
}


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection for the only writer; file and tables are made where they are missing, old tables made new.

    The file is readable by its owner only, and so are the two files that
    SQLite keeps beside it (they take its mode). The connection may be used by
    one thread at a time, any thread.

    Raises:
        StoreTooNew, StoreDamaged: something else lies there.
        OSError, sqlite3.Error: the disk refuses.
    """
    private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    db = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        try:
            is_new = _is_empty(db)
        except sqlite3.DatabaseError as error:
            raise journal_told(path, error) from error
        if not is_new:
            check_version(db, path)
        # Where WAL cannot be had (some network disks), SQLite stays with its rollback journal: slower, as safe.
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise  # else another process is making the same change, or has it open: a copy may have two writers
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA trusted_schema = OFF")
        if is_new or version_of(db) != VERSION:
            _make_or_migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def version_of(db: sqlite3.Connection) -> int:
    """Of the tables in ``db``."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _is_empty(db: sqlite3.Connection) -> bool:
    return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _make_or_migrate(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        # Looked at again: another process may have been faster.
        steps = [_TABLES] if _is_empty(db) else [_MIGRATIONS[v] for v in range(version_of(db), VERSION)]
        for statement in ";".join(steps).split(";"):
            if statement.strip():
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def open_for_reading(
    path: Path,
    *,
    check: Callable[[sqlite3.Connection, Path], None] | None = None,
    told: Callable[[Path, Exception], StoreError] | None = None,
) -> sqlite3.Connection | None:
    """A read-only connection; None where the file is gone or has no tables yet.

    Args:
        path: of a journal, or of another file of the store.
        check: refuses tables that are not what they should be; default: of a journal.
        told: an error as a sentence; default: of a journal.

    Raises:
        StoreTooNew, StoreDamaged: the file cannot be read.
    """
    check = check or check_version
    told = told or journal_told
    if not path.is_file():
        return None
    try:
        for how in _WAYS_TO_READ:
            beside = any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal"))
            if "immutable" in how and beside:
                continue
            try:
                return _reading(path, how, check)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                    raise
                refused = error
        raise refused
    except sqlite3.Error as error:
        if not path.exists():  # removed while we looked: an unused journal goes when its controller ends
            return None
        raise told(path, error) from error


def _reading(
    path: Path, how: str, check: Callable[[sqlite3.Connection, Path], None]
) -> sqlite3.Connection | None:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, timeout=LOCK_WAIT_S, isolation_level=None
    )
    try:
        db.execute("PRAGMA trusted_schema = OFF")
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            check(db, path)
            return db
        db.close()
        return None
    except BaseException:
        db.close()
        raise


def check_version(db: sqlite3.Connection, path: Path) -> None:
    """Whether the tables are ones of a journal that we know.

    Raises:
        StoreTooNew: a newer jupyter_train made them.
        StoreDamaged: it is no journal.
    """
    foreign = "is not a journal of jupyter_train; move it out of that folder."
    check_tables(db, path, application=APPLICATION_ID, newest=VERSION, foreign=foreign, what="journal")


def check_tables(
    db: sqlite3.Connection, path: Path, *, application: int, newest: int, foreign: str, what: str
) -> None:
    """Whether the file is one of ours, and of a version that we know.

    Args:
        db: a connection to ``path``.
        path: for the sentence.
        application: what marks such a file.
        newest: version that we know.
        foreign: what to say of ``path`` where it is none.
        what: it is.

    Raises:
        StoreTooNew: a newer jupyter_train made it.
        StoreDamaged: it is something else.
    """
    (found,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if found != application or version < 1:
        raise StoreDamaged(f"{path} {foreign}")
    if version > newest:
        raise StoreTooNew(
            f"{path} was written by a newer jupyter_train ({what} version {version}; "
            f"this one reads up to {newest}). Upgrade with  pip install -U jupyter_train."
        )


def journal_told(path: Path, error: Exception) -> StoreError:
    """``error`` of a read from the journal at ``path``, as a sentence."""
    return StoreDamaged(f"{path} cannot be read: {error}. Its runs are not shown; other journals are.")
