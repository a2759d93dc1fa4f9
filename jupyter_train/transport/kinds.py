"""What can change inside an object, kind by kind: a shallow picture of it, and what differs from one.

A picture holds the identity of what an object refers to, not copies. Arrays and
tensors are pictured by where their elements lie; whether the bytes there
changed is known by region (``Regions.changed``).

An edit is a tuple ``(verb, …)``; ``edits.py`` carries it out on the notebook's own object.
"""

from __future__ import annotations

import array
import collections
import io
import pickle
import random
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import is_
from types import CellType, FunctionType, ModuleType
from typing import Any, Protocol

import numpy as np
import xxhash

from jupyter_train.transport.transient import transient_attributes

Edit = tuple[Any, ...]

#: Whether something that only its owner refers to changed inside; None: it has nothing of the kind.
ChangedInside = Callable[[Any], bool] | None


class Kind(Protocol):
    """One aspect of objects that can change."""

    def picture(self, value: Any) -> Any:
        """What :meth:`edits` compares with."""

    def edits(self, value: Any, picture: Any, inside: ChangedInside) -> list[Edit]:
        """What makes the pictured object the present one."""

    def parts(self, value: Any) -> Iterable[Any]:
        """What it refers to."""


def _same(now: Iterable[Any], then: Sequence[Any]) -> bool:
    return all(map(is_, now, then))


class _Entries:
    """The items of a dict, or the attributes of an object."""

    def __init__(self, verb: str, entries: Callable[[Any], dict[Any, Any]], *, ordered: bool) -> None:
        self._verb = verb
        self._entries = entries
        self._ordered = ordered

    def picture(self, value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        entries = self._entries(value)
        return tuple(entries.keys()), tuple(entries.values())

    def edits(
        self, value: Any, picture: tuple[tuple[Any, ...], tuple[Any, ...]], inside: ChangedInside
    ) -> list[Edit]:
        keys, values = picture
        entries = self._entries(value)
        changed = [key for key, item in entries.items() if inside(item)] if inside else []
        same_keys = len(entries) == len(keys) and _same(entries.keys(), keys)
        if same_keys and not changed and _same(entries.values(), values):
            return []
        old = dict(zip(keys, values, strict=True))
        missing = object()
        given = [
            (key, item)
            for key, item in entries.items()
            if old.get(key, missing) is not item or key in changed
        ]
        gone = [key for key in keys if key not in entries]
        if self._ordered:
            order = [key for key in keys if key in entries] + [key for key in entries if key not in old]
            if not _same(entries.keys(), order):
                return [("replace_items", list(entries.items()))]
        return [(self._verb, given, gone)] if given or gone else []

    def parts(self, value: Any) -> Iterable[Any]:
        return self._entries(value).values()


class _Sequence:
    """A list or deque."""

    def picture(self, value: Any) -> tuple[Any, ...]:
        return tuple(value)

    def edits(self, value: Any, picture: tuple[Any, ...], inside: ChangedInside) -> list[Edit]:
        if len(value) < len(picture) or not _same(picture, value) or (inside and any(map(inside, value))):
            return [("elements", list(value))]
        tail = list(value)[len(picture) :]
        return [("extend", tail)] if tail else []

    def parts(self, value: Any) -> Iterable[Any]:
        return tuple(value)


class _Set:
    def picture(self, value: Any) -> frozenset[Any]:
        return frozenset(value)

    def edits(self, value: Any, picture: frozenset[Any], inside: ChangedInside) -> list[Edit]:
        added, gone = list(set(value) - picture), list(picture - set(value))
        return [("members", added, gone)] if added or gone else []

    def parts(self, value: Any) -> Iterable[Any]:
        return ()


class _Buffer:
    """A bytearray or array.array."""

    def picture(self, value: Any) -> bytes:
        return xxhash.xxh3_128_digest(memoryview(value).cast("B"))

    def edits(self, value: Any, picture: bytes, inside: ChangedInside) -> list[Edit]:
        return [] if self.picture(value) == picture else [("content", value[:])]

    def parts(self, value: Any) -> Iterable[Any]:
        return ()


class _Slots:
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def picture(self, value: Any) -> tuple[Any, ...]:
        return tuple(getattr(value, name, _UNSET) for name in self._names)

    def edits(self, value: Any, picture: tuple[Any, ...], inside: ChangedInside) -> list[Edit]:
        given, gone = [], []
        for name, now, then in zip(self._names, self.picture(value), picture, strict=True):
            if now is _UNSET and then is not _UNSET:
                gone.append(name)
            elif now is not then or (inside and inside(now)):
                given.append((name, now))
        return [("slots", given, gone)] if given or gone else []

    def parts(self, value: Any) -> Iterable[Any]:
        return self.picture(value)


class _Cell:
    """A variable that functions share (``nonlocal``)."""

    def picture(self, value: CellType) -> Any:
        try:
            return value.cell_contents
        except ValueError:
            return _UNSET

    def edits(self, value: CellType, picture: Any, inside: ChangedInside) -> list[Edit]:
        now = self.picture(value)
        return [] if now is _UNSET or (now is picture and not (inside and inside(now))) else [("cell", now)]

    def parts(self, value: CellType) -> Iterable[Any]:
        return (self.picture(value),)


class _State:
    """Opaque but for its state: a generator of random numbers, a file in memory."""

    def __init__(self, state: Callable[[Any], Any]) -> None:
        self._state = state

    def picture(self, value: Any) -> bytes:
        return pickle.dumps(self._state(value), 5)

    def edits(self, value: Any, picture: bytes, inside: ChangedInside) -> list[Edit]:
        return [] if self.picture(value) == picture else [("state", self._state(value))]

    def parts(self, value: Any) -> Iterable[Any]:
        return ()


_UNSET = object()


def _dict(value: Any) -> dict[Any, Any]:
    return value  # type: ignore[no-any-return]


def _attributes(value: Any) -> dict[Any, Any]:
    attributes = value.__dict__
    transient = transient_attributes(type(value))
    if transient is None:
        return attributes  # type: ignore[no-any-return]
    return {name: item for name, item in attributes.items() if not transient(name)}


ITEMS = _Entries("items", _dict, ordered=True)
ATTRIBUTES = _Entries("attributes", _attributes, ordered=False)
SEQUENCE = _Sequence()


def kinds_of(kind: type, arrays: Sequence[tuple[type, Kind]]) -> tuple[Kind, ...]:
    """The ways in which objects of type ``kind`` can change; empty where they cannot.

    Args:
        kind: the type.
        arrays: kinds that need the memory of one load, by base class.
    """
    for base, array_kind in arrays:
        if issubclass(kind, base):
            return (array_kind,)
    if issubclass(kind, FunctionType):
        return (ATTRIBUTES,)
    if issubclass(kind, type | ModuleType) or kind.__module__ == "logging":
        return ()  # not the notebook's
    if issubclass(kind, CellType):
        return (_Cell(),)
    if kind.__module__.startswith("pandas."):
        return ()  # an index, or the insides of a frame: caches apart, they change with the frame
    state = _state_of(kind)
    if state is not None:
        return (_State(state),)
    kinds: list[Kind] = []
    if issubclass(kind, dict):
        kinds.append(ITEMS)
    elif issubclass(kind, list | collections.deque):
        kinds.append(SEQUENCE)
    elif issubclass(kind, set):
        kinds.append(_Set())
    elif issubclass(kind, bytearray | array.array):
        kinds.append(_Buffer())
    if kind.__dictoffset__:
        kinds.append(ATTRIBUTES)
    slots = _slots_of(kind)
    if slots:
        kinds.append(_Slots(slots))
    return tuple(kinds)


def _slots_of(kind: type) -> tuple[str, ...]:
    names: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__"):
                private = name.startswith("__") and not name.endswith("__")
                names.append(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return tuple(names)


def _state_of(kind: type) -> Callable[[Any], Any] | None:
    if issubclass(kind, random.Random):
        return lambda value: value.getstate()
    if issubclass(kind, io.BytesIO | io.StringIO):
        return lambda value: value.__getstate__()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        if issubclass(kind, numpy_random.Generator):
            return lambda value: value.bit_generator.state
        if issubclass(kind, numpy_random.RandomState):
            return lambda value: value.get_state(legacy=False)
    torch = sys.modules.get("torch")
    if torch is not None and issubclass(kind, torch.Generator):
        return lambda value: value.get_state()
    return None


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
            return [] if len(now) == len(picture) and _same(now, picture) else [("objects", list(now))]
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
        writes = value._version if region < 0 else 0
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


class Frames:
    """pandas frames and series: opaque but for their blocks and axes."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def picture(self, value: Any) -> Any:
        manager = value._mgr
        blocks = tuple(manager.arrays)
        return blocks, tuple(manager.axes), tuple(map(self._picture_of, blocks)), dict(value.attrs)

    def _picture_of(self, block: Any) -> Any:
        return self._arrays.picture(block) if type(block) is np.ndarray else None

    def edits(self, value: Any, picture: Any, inside: ChangedInside) -> list[Edit]:
        now = self.picture(value)
        same = len(now[0]) == len(picture[0]) and _same(now[0], picture[0]) and _same(now[1], picture[1])
        if same and now[3] == picture[3] and not any(map(self._block_changed, now[0], picture[2])):
            return []
        return [("frame", value.copy(deep=False))]

    def _block_changed(self, block: Any, picture: Any) -> bool:
        return picture is not None and bool(self._arrays.edits(block, picture, None))

    def parts(self, value: Any) -> Iterable[Any]:
        return ()
