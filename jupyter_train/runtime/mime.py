"""Mime bundles on their way to another process: only what JSON carries, only what still means something there. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

MAX_CHARACTERS = 32 * 2**20  #: of one display; plots with more data than that choke the page as well

#: They name an object in the process that made them, which no front end can reach and which ends with the cell.
_BOUND_HERE = ("application/vnd.jupyter.widget-view+json",)


def portable(
    data: Mapping[str, Any], metadata: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """``data`` and ``metadata`` as JSON values, bytes in base64; and the mime types that had to be left out."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    size = 0
    for mime, value in data.items():
        try:
            if mime in _BOUND_HERE:
                raise ValueError(mime)
            ready = _as_json(value)
            size += (more := len(ready) if isinstance(ready, str) else len(json.dumps(ready)))
            if size > MAX_CHARACTERS and mime != "text/plain":
                size -= more
                raise ValueError(mime)
        except (TypeError, ValueError, RecursionError):
            left_out.append(str(mime))
        else:
            kept[str(mime)] = ready
    try:
        about = {str(key): _as_json(value) for key, value in (metadata or {}).items()}
    except (TypeError, ValueError, RecursionError):
        about = {}
    return kept, about, left_out


def size_of(data: Mapping[str, Any]) -> int:
    """Characters of a bundle, about."""
    return sum(len(value) if isinstance(value, str) else len(json.dumps(value)) for value in data.values())


def _as_json(value: Any) -> Any:
    """``value`` made of plain types, as it will be after its travel.

    Raises:
        TypeError, ValueError: it holds what JSON cannot carry.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    """What numpy's scalars and arrays, and tensors, stand for; dates as text."""
    for name in ("tolist", "isoformat"):
        if callable(convert := getattr(value, name, None)):
            return convert()
    raise TypeError(f"JSON cannot carry a {type(value).__name__}")
