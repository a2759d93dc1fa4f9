"""The rows of a journal: summaries, batches of events and the controller's mark, to SQL and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from jupyter_train.record import RunState
from jupyter_train.store.liveness import ControllerMark, Moment
from jupyter_train.store.schema import version_of
from jupyter_train.store.summary import LastValue, RunSummary, from_json, to_json

_MARK = [f.name for f in fields(ControllerMark)]
_NEW_IN_2 = ("beat_boot", "beat_s", "origin")
_MARK_IN_1 = [name for name in _MARK if name not in _NEW_IN_2]
_SUMMARY = [f.name for f in fields(RunSummary)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Packed events of one run, one after the other, in the order of their numbers."""

    run_id: str
    first_seq: int
    last_seq: int
    data: bytes


def write_mark(db: sqlite3.Connection, mark: ControllerMark) -> None:
    """Say who writes this journal."""
    values = [getattr(mark, name) for name in _MARK]
    db.execute(
        f"INSERT OR REPLACE INTO controller (one, {', '.join(_MARK)}) VALUES (1{', ?' * len(_MARK)})", values
    )


def read_mark(db: sqlite3.Connection) -> ControllerMark | None:
    """Who writes this journal."""
    names = _MARK if version_of(db) > 1 else _MARK_IN_1
    row = db.execute(f"SELECT {', '.join(names)} FROM controller").fetchone()
    return None if row is None else ControllerMark(**dict(zip(names, row, strict=True)))


def write_beat(db: sqlite3.Connection, now: Moment) -> None:
    """Say that whoever writes this journal lived just now."""
    db.execute(
        "UPDATE controller SET heartbeat = ?, beat_boot = ?, beat_s = ?", (now.unix_s, now.boot, now.steady_s)
    )


def write_summary(db: sqlite3.Connection, summary: RunSummary) -> None:
    """Put ``summary`` in the place of that run's earlier one."""
    metrics = {name: [v.step, v.value, v.rank] for name, v in summary.metrics.items()}
    special = {
        "state": None if summary.state is None else str(summary.state),
        "metrics": to_json(metrics),
        "spec": to_json(summary.spec),
    }
    values = [_storable(special.get(name, getattr(summary, name))) for name in _SUMMARY]
    db.execute(
        f"INSERT OR REPLACE INTO runs ({', '.join(_SUMMARY)}) VALUES ({', '.join('?' * len(_SUMMARY))})",
        values,
    )


def read_summaries(db: sqlite3.Connection, run_id: str | None = None) -> Iterator[RunSummary]:
    """All summaries, or that of one run; in no order.

    Raises:
        ValueError, TypeError, KeyError: a row does not hold what it should.
    """
    where, values = ("", ()) if run_id is None else (" WHERE run_id = ?", (run_id,))
    for row in db.execute(f"SELECT {', '.join(_SUMMARY)} FROM runs{where}", values):
        known: dict[str, Any] = dict(zip(_SUMMARY, row, strict=True))
        known["state"] = None if known["state"] is None else RunState(known["state"])
        known["metrics"] = {
            name: LastValue(step=step, value=float(value), rank=rank)
            for name, (step, value, rank) in from_json(known["metrics"]).items()
        }
        known["spec"] = from_json(known["spec"])
        yield RunSummary(**known)


def read_summary(db: sqlite3.Connection, run_id: str) -> RunSummary | None:
    """The summary of one run."""
    return next(read_summaries(db, run_id), None)


def write_batches(db: sqlite3.Connection, batches: Iterable[Batch]) -> None:
    """Add ``batches``; one that is there already is left as it is."""
    db.executemany(
        "INSERT OR IGNORE INTO batches (run_id, first_seq, last_seq, data) VALUES (?, ?, ?, ?)",
        [(b.run_id, b.first_seq, b.last_seq, b.data) for b in batches],
    )


def read_batches(db: sqlite3.Connection, run_id: str, after: int = 0) -> Iterator[Batch]:
    """Batches that hold events of ``run_id`` with a number above ``after``, in order."""
    rows = db.execute(
        "SELECT first_seq, last_seq, data FROM batches WHERE run_id = ? AND last_seq > ? ORDER BY last_seq",
        (run_id, after),
    )
    for first, last, data in rows:
        yield Batch(run_id=run_id, first_seq=first, last_seq=last, data=bytes(data))


def read_sizes(db: sqlite3.Connection) -> dict[str, int]:
    """Bytes of the events of each run."""
    return dict(db.execute("SELECT run_id, sum(length(data)) FROM batches GROUP BY run_id"))


def _storable(value: Any) -> Any:
    # SQLite takes neither lone surrogates, which Python has for undecodable file names, nor integers beyond 64 bits.
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return max(min(value, 2**63 - 1), -(2**63))
    return value
