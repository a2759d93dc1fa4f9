"""What is said where a cell reads more than should travel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NAMED = 5
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def too_much(sizes: Mapping[str, int], namespace: Mapping[str, Any], limit_bytes: int) -> str:
    """The message: the largest names, and what to do instead.

    Args:
        sizes: bytes by name.
        namespace: the values of the names.
        limit_bytes: what may travel.
    """
    largest = sorted(sizes.items(), key=lambda item: -item[1])
    shown = [
        f"{name} ({described(namespace.get(name))}) {byte_text(size)}"
        for name, size in largest[:_NAMED]
        if size * 100 >= limit_bytes
    ] or [f"{len(sizes)} names"]
    return (
        f"the cell reads more than {byte_text(limit_bytes)} of the notebook's data: {', '.join(shown)}. "
        "Load or make what is large inside the cell, or let it read files that the workers have too; "
        f"%train capture {largest[0][0] if largest else ''}  shows what travels. The limit is jupyter-train.capture-bytes "
        'of Dask\'s config: dask.config.set({"jupyter-train.capture-bytes": "8GB"})'
    )


def described(value: Any) -> str:
    """The type of ``value`` as people call it, with shape and element type where it has them."""
    kind = type(value).__qualname__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and all(isinstance(length, int) for length in shape):
        file = getattr(value, "filename", None)
        kind = f"{kind} of {file}" if isinstance(file, str | Path) else kind
        dtype = getattr(value, "dtype", None)
        text = "×".join(map(str, shape)) or "scalar"
        return f"{kind} {text} {str(dtype).removeprefix('torch.')}" if dtype is not None else f"{kind} {text}"
    if isinstance(value, list | tuple | dict | set | frozenset | str | bytes | bytearray):
        return f"{kind} of {len(value):,}"
    return kind


def byte_text(size: int) -> str:
    """``203 MB``: decimal units, three digits."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"
