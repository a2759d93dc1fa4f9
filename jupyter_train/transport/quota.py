"""How much captured data may travel and be kept: what Dask's configuration says below ``jupyter-train``."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_train.errors import CaptureError

CAPTURE_BYTES = 2 * 10**9
CONTENT_BYTES = 20 * 10**9
CONTENT_AGE_S = 30 * 86400.0

#: Of the disk: captured data leaves room for others, up to so many bytes.
_FREE_FRACTION = 0.05
_FREE_BYTES = 5 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What the folder of captured data may take."""

    max_bytes: int = CONTENT_BYTES
    max_age_s: float = CONTENT_AGE_S  #: since it was last used
    min_free_bytes: int = 0  #: to be left on its disk


def capture_limit() -> int:
    """How many bytes of the notebook's data one cell may read.

    Raises:
        CaptureError: the configuration has something else.
    """
    return _bytes("capture-bytes", CAPTURE_BYTES)


def content_quota(folder: Path) -> Quota:
    """What may be kept in ``folder``.

    Raises:
        CaptureError: the configuration has something else.
        OSError: the folder cannot be looked at.
    """
    disk = shutil.disk_usage(folder)
    return Quota(
        max_bytes=_bytes("content-bytes", CONTENT_BYTES),
        max_age_s=_seconds("content-age", CONTENT_AGE_S),
        min_free_bytes=min(int(disk.total * _FREE_FRACTION), _FREE_BYTES),
    )


def _bytes(key: str, default: int) -> int:
    from dask.utils import parse_bytes

    given = _given(key, default)
    try:
        return int(parse_bytes(given))
    except (ValueError, TypeError) as error:
        raise _wrong(key, given, "a number of bytes is needed, such as 4GB") from error


def _seconds(key: str, default: float) -> float:
    from dask.utils import parse_timedelta

    given = _given(key, default)
    try:
        return float(parse_timedelta(given))
    except (ValueError, TypeError, KeyError) as error:
        raise _wrong(key, given, "a duration is needed, such as 30 days") from error


def _given(key: str, default: Any) -> Any:
    import dask

    return dask.config.get(f"jupyter-train.{key}", default=default)


def _wrong(key: str, given: object, needed: str) -> CaptureError:
    return CaptureError(f"jupyter-train.{key} of Dask's config is {given!r}: {needed}")
