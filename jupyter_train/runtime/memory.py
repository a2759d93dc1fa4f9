"""What takes the memory when it has run out, in the user's own names. Reads sizes only: there is no room to compute."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

SHOWN = 5
_WORDS = ("out of memory", "can't allocate memory")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory was short, of the host or of a device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def memory_in_use(trace: TracebackType | None) -> str:
    """What the frames of ``trace`` hold, largest first: ``x 10.7 GB, optimizer 8.0 MB, model 4.0 MB``.

    What two names share counts for the one that is found first: a model before
    the optimizer that has its parameters.
    """
    seen: set[int] = set()
    sizes: dict[str, int] = {}
    for name, value in sorted(_names(trace), key=lambda item: _order(item[1])):
        size = sum(_bytes(tensor, seen) for tensor in _arrays(value))
        if size:
            sizes[name] = sizes.get(name, 0) + size
    largest = sorted(sizes.items(), key=lambda item: -item[1])
    told = [f"{name} {_words(size)}" for name, size in largest[:SHOWN]]
    left = sum(size for _, size in largest[SHOWN:])
    return ", ".join([*told, f"{len(largest) - SHOWN} more {_words(left)}"] if left else told)


def _names(trace: TracebackType | None) -> Iterator[tuple[str, Any]]:
    met: set[int] = set()
    for frame, _ in traceback.walk_tb(trace):
        names: Mapping[str, Any] = frame.f_locals
        for name, value in list(names.items()):
            if id(value) not in met and not name.startswith("__"):
                met.add(id(value))
                yield name, value


def _torch() -> Any:
    return sys.modules.get("torch")


def _order(value: Any) -> int:
    torch = _torch()
    if torch is None:
        return 0
    return 0 if isinstance(value, torch.nn.Module) else 1 if isinstance(value, torch.optim.Optimizer) else 2


def _arrays(value: Any) -> Iterator[Any]:
    """Tensors and arrays in a module (parameters, buffers, gradients), an optimizer, a shallow container, or itself."""
    torch = _torch()
    if torch is not None and isinstance(value, torch.nn.Module):
        for parameter in value.parameters():
            yield parameter
            yield parameter.grad
        yield from value.buffers()
    elif torch is not None and isinstance(value, torch.optim.Optimizer):
        for state in value.state.values():
            yield from state.values()
    elif isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    else:
        yield value


def _bytes(value: Any, seen: set[int]) -> int:
    torch, numpy = _torch(), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        try:
            storage = value.untyped_storage()
            key, size = storage.data_ptr(), storage.nbytes()
        except (RuntimeError, NotImplementedError):  # sparse, functional and the like
            key, size = id(value), value.numel() * value.element_size()
    elif numpy is not None and isinstance(value, numpy.ndarray):
        while isinstance(value.base, numpy.ndarray):
            value = value.base
        key, size = value.ctypes.data, value.nbytes
    else:
        return 0
    if key in seen:
        return 0
    seen.add(key)
    return int(size)


def _words(size: int) -> str:
    for unit, step in (("GB", 10**9), ("MB", 10**6)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size / 1000:.0f} kB"
