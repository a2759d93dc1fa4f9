"""Which tensors, arrays and modules are as they were when a loop began: a checkpoint leaves them out.

By their values: ``.data`` and numpy change them without a trace.
"""

from __future__ import annotations

import marshal
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import xxhash
from torch import nn

WHOLE_BYTES = 64 << 20  #: what is larger is sampled
PIECE_BYTES = 1 << 16
PIECES = 256
MOST_ITEMS = 10_000  #: of a plain container; smaller ones are kept in any case


class Unchanged:
    """Digests of what was there at the beginning. Main thread of a rank."""

    def __init__(self) -> None:
        self._digests: dict[int, tuple[Any, bytes]] = {}

    def note(self, values: Iterable[Any]) -> None:
        """``values`` are there when the loop begins."""
        for value in values:
            if (told := digest(value)) is not None:
                self._digests[id(value)] = (_reference(value), told)

    def knows(self, value: Any) -> bool:
        """It was there, and is the same."""
        known = self._digests.get(id(value))
        return known is not None and known[0]() is value and digest(value) == known[1]


def digest(value: Any) -> bytes | None:
    """Of its values; None where it is small or of another kind."""
    hasher = xxhash.xxh3_128()
    if isinstance(value, nn.Module):
        tensors = [*value.named_parameters(), *value.named_buffers()]
        for name, one in tensors:
            hasher.update(f"{name} {tuple(one.shape)} {one.requires_grad}".encode())
            _add(hasher, one)
        hasher.update(bytes(part.training for part in value.modules()))
    elif isinstance(value, (torch.Tensor, np.ndarray)):
        hasher.update(f"{tuple(value.shape)} {value.dtype}".encode())
        _add(hasher, value)
    elif isinstance(value, (list, tuple, dict)) and len(value) > MOST_ITEMS:
        try:
            hasher.update(marshal.dumps(value))
        except ValueError:  # tensors, or types that derive from plain ones
            return None
    else:
        return None
    return hasher.digest()


def _add(hasher: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        if not value.is_inference():
            hasher.update(str(value._version).encode())
        if value.layout is not torch.strided or value.is_meta or value.is_quantized:
            return
        flat = value.detach()
        flat = flat.reshape(-1) if flat.numel() * flat.element_size() <= WHOLE_BYTES else _sample(flat)
        if flat.is_conj() or flat.is_neg():
            flat = flat.resolve_conj().resolve_neg()
        hasher.update(flat.to("cpu").contiguous().view(torch.uint8).numpy().data)
        return
    if value.nbytes <= WHOLE_BYTES:
        hasher.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        return
    flat_array = value.reshape(-1)
    items = max(1, PIECE_BYTES // value.itemsize)
    for at in np.linspace(0, max(0, flat_array.size - items), PIECES).astype(int):
        hasher.update(np.ascontiguousarray(flat_array[at : at + items]).view(np.uint8).data)


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.reshape(-1)
    items = max(1, PIECE_BYTES // tensor.element_size())
    places = torch.linspace(0, max(0, flat.numel() - items), PIECES, dtype=torch.float64).long().tolist()
    return torch.cat([flat[at : at + items] for at in places])


def _reference(value: Any) -> Any:
    try:
        return weakref.ref(value)
    except TypeError:  # a plain list or dict: held, so that its id stays its own
        return lambda: value
