"""What can change inside arrays, tensors and frames, as in ``kinds.py``.

They are pictured by where their elements lie. Whether the bytes there changed
is known by region (``Regions.changed``), so that taking a picture reads none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xxhash

from jupyter_train.transport.kinds import ChangedInside, Edit, same


class Elements:
    """Base of arrays and tensors: where their elements lie among the regions of a load.

    Args:
        spans: as ``Regions.spans``.
    """

    def __init__(self, spans: Sequence[tuple[int, int, int]]) -> None:
        self._spans = spans
        self._starts = [start for start, _, _ in spans]
        self.changed: set[int] = set()  #: regions whose bytes changed, set before edits are asked for

    def region_at(self, address: int) -> int:
        """The region that holds ``address``, else −1."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._spans[at][1]:
            return -1
        return self._spans[at][2]

    def parts(self, value: Any) -> Iterable[Any]:
        return ()


class Arrays(Elements):
    """numpy arrays."""

    def picture(self, value: np.ndarray[Any, Any]) -> Any:
        if value.dtype.hasobject:
            return tuple(value.ravel().tolist())
        address = value.__array_interface__["data"][0]
        region = self.region_at(address) if value.size else -1
        content = _hash(value) if region < 0 else b""
        return address if region >= 0 else 0, value.shape, value.strides, value.dtype, region, content

    def edits(self, value: np.ndarray[Any, Any], picture: Any, inside: ChangedInside) -> list[Edit]:
        now = self.picture(value)
        if value.dtype.hasobject:
            return [] if len(now) == len(picture) and same(now, picture) else [("objects", list(now))]
        if now == picture and now[4] not in self.changed:
            return []
        return [("array", value.view(np.ndarray)[...])]


def _hash(value: np.ndarray[Any, Any]) -> bytes:
    if not value.size:
        return b""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)


class Tensors(Elements):
    """torch tensors."""

    def picture(self, value: Any) -> Any:
        import torch

        plain = value.layout is torch.strided and value.device.type != "meta"
        address = value.data_ptr() if plain else 0
        on_cpu = value.device.type == "cpu"
        region = self.region_at(address) if on_cpu and value.numel() else -1
        # Elements that lie elsewhere (on an accelerator, or made while loading) are known by
        # torch's count of writes, which misses writes through ``.data``.
        writes = value._version if region < 0 and not value.is_inference() else 0
        stride = value.stride() if plain else ()
        return (
            address,
            tuple(value.shape),
            stride,
            value.dtype,
            value.device,
            region,
            writes,
            value.requires_grad,
        )

    def edits(self, value: Any, picture: Any, inside: ChangedInside) -> list[Edit]:
        now = self.picture(value)
        trained_elsewhere = now[5] < 0 and value.requires_grad
        if now[:-1] == picture[:-1] and now[5] not in self.changed and not trained_elsewhere:
            return [] if now[-1] == picture[-1] else [("requires_grad", now[-1])]
        return [("tensor", value.detach(), now[-1] and value.is_leaf)]


class Gradients:
    """``.grad`` of tensors that are no Parameter: what a cell of hand-made training leaves for the next.

    Gradients of Parameters stay behind, see docs/cell.md: they are as large as
    the model, and the next step overwrites them.
    """

    def picture(self, value: Any) -> Any:
        return value.grad if value.is_leaf else None

    def edits(self, value: Any, picture: Any, inside: ChangedInside) -> list[Edit]:
        now = self.picture(value)
        return [] if now is picture else [("grad", now)]

    def parts(self, value: Any) -> Iterable[Any]:
        return ()


class IndexNames:
    """pandas indexes, which never change but for their names."""

    def picture(self, value: Any) -> tuple[Any, ...]:
        return tuple(value.names)

    def edits(self, value: Any, picture: tuple[Any, ...], inside: ChangedInside) -> list[Edit]:
        now = self.picture(value)
        return (
            [] if len(now) == len(picture) and same(now, picture) else [("setattr", [("names", list(now))])]
        )

    def parts(self, value: Any) -> Iterable[Any]:
        return ()


class Frames:
    """pandas frames and series: opaque but for their blocks and axes."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def picture(self, value: Any) -> Any:
        manager = value._mgr
        blocks = tuple(manager.arrays)
        return blocks, tuple(manager.axes), tuple(map(self._picture_of, blocks)), self._beside(value)

    def _beside(self, value: Any) -> tuple[Any, ...]:
        """What is neither block nor axis: ``attrs``, flags, and the name of a series."""
        named = tuple(getattr(value, name, None) for name in value._metadata)
        return dict(value.attrs), value.flags.allows_duplicate_labels, named

    def _picture_of(self, block: Any) -> Any:
        return self._arrays.picture(block) if type(block) is np.ndarray else None

    def edits(self, value: Any, picture: Any, inside: ChangedInside) -> list[Edit]:
        now = self.picture(value)
        alike = len(now[0]) == len(picture[0]) and same(now[0], picture[0]) and same(now[1], picture[1])
        if alike and now[3] == picture[3] and not any(map(self._block_changed, now[0], picture[2])):
            return []
        return [("frame", value.copy(deep=False))]

    def _block_changed(self, block: Any, picture: Any) -> bool:
        return picture is not None and bool(self._arrays.edits(block, picture, None))

    def parts(self, value: Any) -> Iterable[Any]:
        return ()
