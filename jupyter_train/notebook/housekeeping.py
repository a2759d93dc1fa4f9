"""Keeps the folder of captured data from growing for ever. Called in the kernel, once per process, off the critical path."""

from __future__ import annotations

import threading
from pathlib import Path

DEFAULT_CONTENT_BYTES = 20 * 10**9
_asked = threading.Event()


def prune_once(folder: Path) -> threading.Thread | None:
    """Remove what was used least recently beyond ``jupyter-train.content-bytes`` of Dask's config (20 GB).

    What was used within the last hour stays: a queued run may need it. A run
    whose captured data is gone keeps its result; only names that changed in
    place cannot be put together again in another kernel.
    """
    if _asked.is_set():
        return None
    _asked.set()
    thread = threading.Thread(target=_prune, args=(folder,), name="jupyter-train-prune", daemon=True)
    thread.start()
    return thread


def _prune(folder: Path) -> None:
    import dask

    from jupyter_train.transport.content import ContentStore

    limit = int(dask.config.get("jupyter-train.content-bytes", default=DEFAULT_CONTENT_BYTES))
    try:
        ContentStore(folder).prune(limit)
    except OSError:  # an unreadable folder: the next capture says so where it matters
        return
