"""Keeps the folder of captured data from growing for ever. Called in the kernel, once per process, off the critical path."""

from __future__ import annotations

import threading
from pathlib import Path

from jupyter_train.errors import CaptureError

DEFAULT_CONTENT_BYTES = 20 * 10**9
DEFAULT_CAPTURE_BYTES = 2 * 10**9
_asked = threading.Event()


def capture_limit() -> int:
    """``jupyter-train.capture-bytes`` of Dask's config: how much of the notebook's data one cell may read."""
    return _configured_bytes("capture-bytes", DEFAULT_CAPTURE_BYTES)


def _configured_bytes(key: str, default: int) -> int:
    """A number of bytes, or a text such as ``4GB``.

    Raises:
        CaptureError: it is neither.
    """
    import dask
    from dask.utils import parse_bytes

    given = dask.config.get(f"jupyter-train.{key}", default=default)
    try:
        return int(parse_bytes(given))
    except (ValueError, TypeError) as error:
        raise CaptureError(
            f"jupyter-train.{key} of Dask's config is {given!r}: a number of bytes is needed, such as 4GB"
        ) from error


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
    from jupyter_train.transport.content import ContentStore

    try:
        ContentStore(folder).prune(_configured_bytes("content-bytes", DEFAULT_CONTENT_BYTES))
    except (OSError, CaptureError):  # an unreadable folder: the next capture says so where it matters
        return
