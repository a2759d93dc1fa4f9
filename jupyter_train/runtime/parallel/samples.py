"""What is inside samples, batches and data sets: rows of tensors, a digest, whether it looks at its rank. Pure."""

from __future__ import annotations

import dataclasses
import os
import sysconfig
import zlib
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

_FEW = 64  #: numbers of one tensor, or items of one collection, that a digest looks at on each end
_DEEPEST = 4
_OF_RANKS = frozenset(
    {"rank", "local_rank", "get_rank", "world_size", "get_world_size", "num_replicas"}
    | {"RANK", "LOCAL_RANK", "WORLD_SIZE", "dp_rank", "dp_world_size"}
)
_INSTALLED = tuple(
    {sysconfig.get_paths()[k] + os.sep for k in ("stdlib", "platstdlib", "purelib", "platlib")}
)


# -- rows


def rows_of(batch: Any) -> int:
    """Rows that all tensors and arrays in ``batch`` have; 0 where they differ, or where something else is in it."""
    found = set(_rows(batch, 0))
    return found.pop() if len(found) == 1 else 0


def _rows(value: Any, depth: int) -> Iterator[int]:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        yield value.shape[0] if value.ndim else 0
    elif depth < _DEEPEST and isinstance(value, Mapping):
        for one in value.values():
            yield from _rows(one, depth + 1)
    elif depth < _DEEPEST and isinstance(value, (list, tuple)) and value:
        for one in value:
            yield from _rows(one, depth + 1)
    elif depth < _DEEPEST and dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _rows(getattr(value, field.name), depth + 1)
    else:
        yield 0


def slice_rows(batch: Any, rows: slice) -> Any:
    """The same batch with ``rows`` of each tensor. Only for what has :func:`rows_of`."""
    if isinstance(batch, (torch.Tensor, np.ndarray)):
        return batch[rows]
    if isinstance(batch, Mapping):
        parts = {name: slice_rows(one, rows) for name, one in batch.items()}
        return parts if type(batch) is dict else type(batch)(parts)  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(slice_rows(one, rows) for one in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(slice_rows(one, rows) for one in batch)
    return dataclasses.replace(
        batch, **{f.name: slice_rows(getattr(batch, f.name), rows) for f in dataclasses.fields(batch)}
    )


# -- digests


def digest_of(value: Any) -> int:
    """31 bits of the whole numbers and the text in ``value``, the same on every rank and host.

    Fractions are passed over: hosts round differently, and an augmentation may
    have a generator of its own. So are folders, which may be each rank's own.
    """
    return zlib.crc32("\0".join(_plain(value, 0)).encode(errors="replace")) & 0x7FFFFFFF


def _plain(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, (bool, int, np.integer)):
        yield str(int(value))
    elif isinstance(value, (str, bytes)):
        text = value[: 1 << 12] if isinstance(value, str) else value[: 1 << 12].hex()
        if os.sep not in text:
            yield text
        elif "." in os.path.basename(text):
            yield os.path.basename(text)
    elif isinstance(value, torch.Tensor):
        if value.device.type == "cpu" and not (value.is_floating_point() or value.is_complex()):
            yield _of_tensor(value.detach())
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "biu":
            flat = value.reshape(-1)
            yield f"{_ends(flat, value.size)} {value.size}"
    elif depth < _DEEPEST and isinstance(value, Mapping):
        for name in list(value)[:_FEW]:
            yield from _plain(name, depth + 1)
            yield from _plain(value[name], depth + 1)
    elif depth < _DEEPEST and isinstance(value, (list, tuple, range)):
        yield str(len(value))
        for one in value if len(value) <= 2 * _FEW else (*value[:_FEW], *value[-_FEW:]):
            yield from _plain(one, depth + 1)


def _of_tensor(tensor: torch.Tensor) -> str:
    if tensor.layout is not torch.strided:
        return ""
    return f"{_ends(tensor.reshape(-1), tensor.numel())} {tensor.numel()}"


def _ends(flat: Any, size: int) -> list[Any]:
    if size <= 2 * _FEW:
        return list(flat.tolist())
    return [*flat[:_FEW].tolist(), *flat[-_FEW:].tolist()]


def state_of(dataset: Any) -> int:
    """A digest of the plain data that ``dataset`` holds."""
    return digest_of(getattr(dataset, "__dict__", None) or {})


# -- ranks


def looks_at_rank(*things: Any) -> bool:
    """The user's code of these data sets and functions reads a rank or the number of ranks: it deals out by itself.

    Read from the bytecode of ``__init__`` and ``__iter__``, of what they call,
    and of the data sets and functions that they hold.
    """
    seen: set[int] = set()
    return any(_looks(thing, _DEEPEST, seen) for thing in things)


def _looks(thing: Any, depth: int, seen: set[int]) -> bool:
    if depth < 0 or thing is None or id(thing) in seen:
        return False
    seen.add(id(thing))
    if isinstance(thing, MethodType):
        thing = thing.__func__
    if isinstance(thing, FunctionType):
        code = thing.__code__
        if code.co_filename.startswith(_INSTALLED):
            return False
        words = _words(code)
        if words & _OF_RANKS:
            return True
        held = [thing.__globals__.get(word) for word in words]
        return any(_looks(one, depth - 1, seen) for one in held if isinstance(one, FunctionType))
    if getattr(thing, "__dict__", {}).get("_distributed") is not None:
        return True  # Hugging Face's split_dataset_by_node
    kind = type(thing)
    if kind.__module__ == "builtins" or not hasattr(kind, "__iter__"):
        return False
    methods = [
        value
        for base in kind.__mro__
        for name, value in vars(base).items()
        if isinstance(value, FunctionType) and (name in ("__init__", "__iter__") or not name.startswith("__"))
    ]
    return any(_looks(one, depth - 1, seen) for one in (*methods, *getattr(thing, "__dict__", {}).values()))


def _words(code: CodeType) -> set[str]:
    words = {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, str):
            words.add(constant)
        elif isinstance(constant, CodeType):
            words |= _words(constant)
    return words
