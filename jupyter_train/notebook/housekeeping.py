"""Keeps the folder of captured data from growing for ever. Called in the kernel, off the critical path."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from jupyter_train.errors import TrainError

PERIOD_S = 600.0
LOST_FOR_GOOD_S = 7 * 24 * 3600.0  #: since its start
_last = -PERIOD_S


def tidy(folder: Path) -> threading.Thread | None:
    """Remove what was used least recently beyond what may be kept; at most every ten minutes, in a thread.

    What an active run needs stays, and so does what was used within the last
    hour. A run whose captured data is gone keeps its result; only names that
    changed in place cannot be put together again in another kernel.
    """
    global _last
    now = time.monotonic()
    if now - _last < PERIOD_S:
        return None
    _last = now
    thread = threading.Thread(target=_prune, args=(folder,), name="jupyter-train-prune", daemon=True)
    thread.start()
    return thread


def needed_keys() -> set[str]:
    """Captured data of every run that has not ended, of whichever kernel: queued ones, and those that may be retried.

    One that is LOST may still go on where nobody hears of it, but not for ever.
    """
    from jupyter_train.record import RunState
    from jupyter_train.store import Store

    given_up = time.time() - LOST_FOR_GOOD_S
    return {
        str(ref["key"])
        for run in Store().runs()
        if run.state is not None and not run.state.is_terminal
        if run.state is not RunState.LOST or (run.started or 0.0) > given_up
        for ref in run.spec.get("capture", ())
    }


def _prune(folder: Path) -> None:
    from jupyter_train.transport.content import ContentStore
    from jupyter_train.transport.quota import content_quota

    try:
        ContentStore(folder).prune(content_quota(folder), needed=needed_keys())
    except (OSError, TrainError):  # an unreadable folder: the next capture says so where it matters
        return
