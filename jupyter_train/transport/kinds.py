"""What can change inside an object, kind by kind: a shallow picture of it, and what differs from one.

A picture holds the identity of what an object refers to, not copies. Arrays,
tensors and frames are in ``elements.py``.

An edit is a tuple ``(verb, …)``; ``edits.py`` carries it out on the notebook's own object.
"""

from __future__ import annotations

import array
import collections
import io
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from operator import is_
from types import CellType, FunctionType, ModuleType
from typing import Any, Protocol

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


def same(now: Iterable[Any], then: Sequence[Any]) -> bool:
    """Whether the objects are the very same, one by one, as far as the shorter goes."""
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
        same_keys = len(entries) == len(keys) and same(entries.keys(), keys)
        if same_keys and not changed and same(entries.values(), values):
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
            if not same(entries.keys(), order):
                return [("replace_items", list(entries.items()))]
        return [(self._verb, given, gone)] if given or gone else []

    def parts(self, value: Any) -> Iterable[Any]:
        return self._entries(value).values()


class _Sequence:
    """A list or deque."""

    def picture(self, value: Any) -> tuple[Any, ...]:
        return tuple(value)

    def edits(self, value: Any, picture: tuple[Any, ...], inside: ChangedInside) -> list[Edit]:
        if len(value) < len(picture) or not same(picture, value) or (inside and any(map(inside, value))):
            return [("elements", list(value))]
        tail = list(value)[len(picture) :]
        return [("extend", len(picture), tail)] if tail else []

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


class _Class:
    """What the notebook set on its own classes: counters, registries, methods put in later."""

    def picture(self, value: type) -> dict[str, Any]:
        return dict(vars(value)) if value.__module__ == "__main__" else {}

    def edits(self, value: type, picture: dict[str, Any], inside: ChangedInside) -> list[Edit]:
        if value.__module__ != "__main__" or not picture:
            return []
        now = vars(value)
        given = [
            (name, item)
            for name, item in now.items()
            if picture.get(name, _UNSET) is not item and _is_settable(name, item)
        ]
        gone = [name for name, item in picture.items() if name not in now and _is_settable(name, item)]
        return [("class", given, gone)] if given or gone else []

    def parts(self, value: type) -> Iterable[Any]:
        return ()


def _is_settable(name: str, item: Any) -> bool:
    """Whether a class attribute is the user's: not the interpreter's or ``abc``'s bookkeeping."""
    if name.startswith("_abc_"):
        return False
    return not (name.startswith("__") and name.endswith("__")) or isinstance(item, FunctionType)


class _State:
    """Opaque but for its state: a generator of random numbers, a file in memory, an image."""

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
CLASS = _Class()


def kinds_of(kind: type, special: Sequence[tuple[type, tuple[Kind, ...]]]) -> tuple[Kind, ...]:
    """The ways in which objects of type ``kind`` can change; empty where they cannot.

    Args:
        kind: the type.
        special: the kinds of arrays, tensors and frames, by base class.
    """
    for base, kinds_there in special:
        if issubclass(kind, base):
            # Attributes: subclasses of arrays have a mask or a unit; a bare array has nowhere to keep any.
            return tuple(one for one in kinds_there if one is not ATTRIBUTES or kind.__dictoffset__)
    if issubclass(kind, FunctionType):
        return (ATTRIBUTES,)
    if issubclass(kind, type):
        return (CLASS,)
    if issubclass(kind, ModuleType) or kind.__module__ == "logging":
        return ()  # not the notebook's
    if issubclass(kind, CellType):
        return (_Cell(),)
    if kind.__module__.partition(".")[0] == "pandas":
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
    image = sys.modules.get("PIL.Image")
    if image is not None and issubclass(kind, image.Image):
        return lambda value: value.__getstate__()
    return None
