"""Takes what deleted runs have on this disk: their files, and their rows where nobody writes that journal any more.

A run is hidden first (:mod:`jupyter_train.store.labels`) and taken then, so
that whatever goes wrong here leaves nothing half deleted in sight: the next
deletion tries again.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path

from jupyter_train.errors import StoreError
from jupyter_train.home import RUN_ID, run_folder
from jupyter_train.store.schema import LOCK_WAIT_S, check_version

logger = logging.getLogger(__name__)

SIDE_FILES = ("", "-wal", "-shm")


def size_of(run_id: str, root: Path) -> int:
    """Bytes of the files in the run's folder on this disk."""
    size = 0
    for file in run_folder(run_id, root).rglob("*"):
        try:
            stat = file.lstat()
        except OSError:
            continue  # gone meanwhile
        # One that has holes, or two names, takes what it takes.
        size += min(stat.st_size, stat.st_blocks * 512)
    return size


def remove_files(run_ids: Iterable[str], root: Path) -> int:
    """Remove the folders of these runs; bytes that they had. What cannot be removed stays, for another time."""
    freed = 0
    for run_id in run_ids:
        folder = run_folder(run_id, root)
        if folder.is_symlink() or not folder.is_dir():
            continue
        before = size_of(run_id, root)
        shutil.rmtree(folder, ignore_errors=True)
        freed += before - (size_of(run_id, root) if folder.exists() else 0)
    return freed


def remove_rows(path: Path, run_ids: Collection[str]) -> int:
    """Take these runs out of the journal at ``path``, which has no writer; bytes by which its files became smaller.

    A journal in which no run is left is removed.
    """
    wanted = [(run_id,) for run_id in run_ids if RUN_ID.fullmatch(run_id)]
    before = _on_disk(path)
    try:
        with closing(_opened(path)) as db:
            check_version(db, path)
            db.execute("BEGIN IMMEDIATE")
            gone = db.executemany("DELETE FROM batches WHERE run_id = ?", wanted).rowcount
            gone += db.executemany("DELETE FROM runs WHERE run_id = ?", wanted).rowcount
            db.execute("COMMIT")
            if not gone:
                return 0
            is_used = db.execute("SELECT EXISTS (SELECT 1 FROM runs)").fetchone()[0]
            if is_used:
                db.execute("VACUUM")  # else what is free stays in the file
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if not is_used:  # closed first: SQLite removes files of these names when it closes
            for end in SIDE_FILES:
                path.with_name(path.name + end).unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)  # of a copy
    except (sqlite3.Error, OSError, StoreError) as error:
        logger.debug("deleted runs stay in %s for now: %s", path, error)
    return max(0, before - _on_disk(path))


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=LOCK_WAIT_S, isolation_level=None
    )
    db.execute("PRAGMA trusted_schema = OFF")
    return db


def _on_disk(path: Path) -> int:
    size = 0
    for end in SIDE_FILES:
        try:
            size += path.with_name(path.name + end).stat().st_size
        except OSError:
            continue
    return size
