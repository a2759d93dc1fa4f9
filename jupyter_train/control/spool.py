"""The last events of a rank whose worker has died, from the file that lies beside the rank."""

from __future__ import annotations

from pathlib import Path

from jupyter_train.home import run_folder
from jupyter_train.record import split_events, unpack_event


def spool_path(run_id: str, attempt: int, rank: int, root: Path | None = None) -> Path:
    """Where a rank writes its events before it sends them.

    Raises:
        ValueError: ``run_id`` is not the id of a run.
    """
    return run_folder(run_id, root) / f"spool-{attempt}-{rank}.events"


def read_tail(path: Path, mark: int) -> list[bytes] | None:
    """The events in ``path`` with a ``rank_seq`` above ``mark``, in order; None where there is no such file here.

    Only the end of a long file is decoded. A half-written last event is left
    out, and so is everything before a damaged one. Any thread.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    newest_first: list[bytes] = []
    for piece in reversed(list(split_events(data))):
        try:
            is_new = unpack_event(piece).rank_seq > mark
        except (ValueError, KeyError, TypeError):
            break
        if not is_new:
            break
        newest_first.append(bytes(piece))
    return newest_first[::-1]
