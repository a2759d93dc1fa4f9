"""What a training loop has that a checkpoint must hold: everything with state that its namespaces lead to, and its plain variables.

Nothing is loaded or saved here: what is found gets a label, which leads to the
same thing in a process that has run the same code up to the loop.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from jupyter_train.runtime.checkpoint.frames import Scope, is_users
from jupyter_train.runtime.checkpoint.kinds import is_iterator
from jupyter_train.runtime.checkpoint.unchanged import Unchanged

DEEPEST = 5
MOST_OBJECTS = 20_000
SMALL_BYTES = 1 << 16  #: of a tensor that may be left over from a batch
OWN_BYTES = 1 << 20  #: what is larger is taken to be alike on all ranks, and written once
MOST_BYTES = 64 << 20  #: of a plain tensor that the loop binds
_ATOMS = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    range,
    slice,
    torch.dtype,
    torch.device,
    torch.Size,
)
_CONTAINERS = (list, tuple, dict, set, frozenset, deque, bytearray, OrderedDict, Counter, defaultdict)
_LOADER = ("dataset", "sampler", "batch_sampler", "generator")
_SAMPLER = ("generator", "sampler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A plain value, and how another one takes its place where it cannot be changed itself."""

    value: Any
    assign: Callable[[Any], None]


@dataclass(slots=True, kw_only=True)
class Found:
    """By label."""

    objects: dict[str, Any] = field(default_factory=dict)  #: with a state of their own
    variables: dict[str, Variable] = field(default_factory=dict)
    iterators: dict[str, Any] = field(default_factory=dict)  #: over loaders
    loaders: dict[str, Any] = field(default_factory=dict)
    #: by the beginning of a label: gives a name that is not there yet its value
    owners: dict[str, Callable[[str, Any], None]] = field(default_factory=dict)

    def assign(self, label: str, value: Any) -> bool:
        """Give what ``label`` leads to its value, where it is not there yet; False where nothing leads there."""
        owner, _, name = label.rpartition("/")
        if owner not in self.owners:
            return False
        self.owners[owner](name, value)
        return True

    def values(self) -> list[Any]:
        """All that there is."""
        return [*self.objects.values(), *(one.value for one in self.variables.values())]

    def label_of(self, wanted: Any) -> str | None:
        """The label of an object."""
        return next((label for label, one in self.objects.items() if one is wanted), None)


def find(scopes: Sequence[Scope], unchanged: Unchanged | None = None) -> Found:
    """All of it.

    Args:
        unchanged: knows what is as it was when the loop began, and need not be kept; None: nothing is left out.
    """
    search = _Search(unchanged)
    for scope in scopes:
        search.scope(scope)
    return search.done()


def find_in(held: Mapping[str, Any]) -> Found:
    """What a few things of a library lead to, by their names."""
    search = _Search(None)
    search.inside("", held)
    return search.done()


def is_module_state(value: Any) -> bool:
    """A model that is trained or averaged: the same on all ranks of a run that is split."""
    return isinstance(value, nn.Module) and any(True for _ in value.parameters())


def is_trained(value: Any) -> bool:
    """A module of which something takes gradients, or an object with a state of its own: it changes in any case."""
    if isinstance(value, nn.Module):
        return any(one.requires_grad for one in value.parameters())
    return not isinstance(value, (torch.Tensor, np.ndarray, *_CONTAINERS))


def is_shared(value: Any) -> bool:
    """Ranks whose batches are shares of one have it alike; else it may hold what a rank has seen."""
    if isinstance(value, (torch.optim.Optimizer, nn.Parameter, torch.optim.lr_scheduler.LRScheduler)):
        return True
    if isinstance(value, torch.Tensor) and value.requires_grad and value.is_leaf:
        return True
    return is_module_state(value) or _has_bytes(value, OWN_BYTES)


class _Search:
    def __init__(self, unchanged: Unchanged | None) -> None:
        self._unchanged = unchanged
        self._found = Found()
        self._seen: dict[int, Any] = {}  #: objects by their id, kept alive meanwhile

    def scope(self, scope: Scope) -> None:
        self._found.owners[scope.key] = scope.assign
        for name, value in list(scope.names.items()):
            if not isinstance(name, str) or (name.startswith("__") and name.endswith("__")):
                continue
            label = f"{scope.key}/{name}"
            if name in scope.bound and self._is_variable(value, is_target=name in scope.targets):
                self._variable(label, value, partial(scope.assign, name))
            elif (is_container(value) and is_plain(value)) or _is_data(value):
                if name in scope.read and scope.is_outer and not self._is_as_it_was(value):
                    self._variable(label, value, partial(scope.assign, name))
            else:
                self._look(label, value, DEEPEST)

    def inside(self, label: str, held: Mapping[str, Any]) -> None:
        """What ``held`` leads to."""
        self._inside(label, held, DEEPEST)

    def done(self) -> Found:
        """Without parts of other things that were found."""
        found = self._found
        inside: set[int] = set()
        for one in found.objects.values():
            if isinstance(one, nn.Module):
                inside.update(id(part) for part in one.modules() if part is not one)
                inside.update(map(id, one.parameters()))
        found.objects = {
            label: one
            for label, one in found.objects.items()
            if id(one) not in inside and not self._is_frozen(one)
        }
        return found

    def _is_frozen(self, value: Any) -> bool:
        if not isinstance(value, nn.Module) or any(one.requires_grad for one in value.parameters()):
            return False
        return self._is_as_it_was(value)

    def _is_as_it_was(self, value: Any) -> bool:
        return self._unchanged is not None and self._unchanged.knows(value)

    # -- things with a state

    def _look(self, label: str, value: Any, depth: int) -> None:
        if (
            isinstance(value, (*_ATOMS, np.generic))
            or id(value) in self._seen
            or len(self._seen) > MOST_OBJECTS
        ):
            return
        self._seen[id(value)] = value
        if isinstance(value, nn.Module):
            self._found.objects[label] = value
            self._attributes_of_module(label, value)
        elif _is_generator(value) or isinstance(value, torch.optim.Optimizer):
            self._found.objects[label] = value
        elif isinstance(value, torch.Tensor):
            if value.requires_grad and value.is_leaf:
                self._found.objects[label] = value
        elif is_iterator(value):
            self._found.iterators[label] = value
        elif isinstance(value, DataLoader):
            self._found.loaders[label] = value
            self._inside(label, {name: getattr(value, name, None) for name in _LOADER}, depth)
        elif isinstance(value, Sampler) and not is_users(type(value)):
            self._inside(label, {name: getattr(value, name, None) for name in _SAMPLER}, depth)
        elif _has_state(value):
            self._found.objects[label] = value
        elif isinstance(value, dict):
            self._items(label, value, list(value.items()), depth)
        elif isinstance(value, (list, deque)):
            self._items(label, value, list(enumerate(value)), depth)
        elif isinstance(value, tuple):
            self._inside(label, {str(k): one for k, one in enumerate(value)}, depth)
        elif isinstance(value, MethodType):
            self._look(label, value.__self__, depth)
        elif isinstance(value, FunctionType):
            if is_users(type("", (), {"__module__": value.__module__ or ""})):
                self._closure(label, value, depth)
        elif is_users(type(value)) or type(value).__name__ == "SimpleNamespace":
            self._attributes(label, value, depth)

    def _inside(self, label: str, held: Mapping[str, Any], depth: int) -> None:
        if depth and len(held) <= MOST_OBJECTS:
            for name, one in held.items():
                self._look(f"{label}/{name}", one, depth - 1)

    def _items(self, label: str, owner: Any, items: list[tuple[Any, Any]], depth: int) -> None:
        """Of a container of things with a state: what is plain among them is a variable."""
        if not depth or len(items) > MOST_OBJECTS:
            return
        for key, one in items:
            at = f"{label}/{_key(key)}"
            if self._is_variable(one, is_target=False):
                if not self._is_as_it_was(one):
                    self._variable(at, one, partial(owner.__setitem__, key))
            else:
                self._look(at, one, depth - 1)

    def _closure(self, label: str, function: FunctionType, depth: int) -> None:
        if not depth:
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            at = f"{label}/{name}"
            if self._is_variable(value, is_target=False) and not self._is_as_it_was(value):
                self._variable(at, value, partial(setattr, cell, "cell_contents"))
            else:
                self._look(at, value, depth - 1)

    def _attributes(self, label: str, owner: Any, depth: int) -> None:
        """Of an object of the notebook: what its methods count and collect is state, too."""
        if not depth:
            return
        is_data_set = isinstance(owner, Dataset)
        self._found.owners[label] = partial(_set, owner)
        for name, value in _held(owner).items():
            at = f"{label}/{name}"
            if self._is_variable(value, is_target=is_data_set):
                if not self._is_as_it_was(value):
                    self._variable(at, value, partial(_set, owner, name))
            else:
                self._look(at, value, depth - 1)

    def _attributes_of_module(self, label: str, module: nn.Module) -> None:
        for path, part in module.named_modules():
            if not is_users(type(part)):
                continue
            for name, value in vars(part).items():
                if name.startswith("_") or name == "training":
                    continue
                at = f"{label}/{path}.{name}"
                if self._is_variable(value, is_target=False):
                    if not self._is_as_it_was(value):
                        self._variable(at, value, partial(_set, part, name))
                else:
                    self._look(at, value, 2)

    # -- plain values

    def _is_variable(self, value: Any, *, is_target: bool) -> bool:
        if isinstance(value, torch.Tensor):
            if value.requires_grad and value.is_leaf:
                return False
            most = SMALL_BYTES if is_target or value.grad_fn is not None else MOST_BYTES
            return type(value) is torch.Tensor and value.numel() * value.element_size() <= most
        if isinstance(value, np.ndarray):
            return not value.dtype.hasobject and value.nbytes <= (SMALL_BYTES if is_target else MOST_BYTES)
        if is_target and is_container(value) and _has_bytes(value, SMALL_BYTES):
            return False
        return is_plain(value)

    def _variable(self, label: str, value: Any, assign: Callable[[Any], None]) -> None:
        self._found.variables[label] = Variable(value=value, assign=assign)


# -- what values are


def is_container(value: Any) -> bool:
    """Of a kind that may hold plain values."""
    return type(value) in _CONTAINERS


def is_plain(value: Any, depth: int = 8) -> bool:
    """Numbers, texts, None, tensors and arrays, and containers of such."""
    kind = type(value)
    if kind in _ATOMS or isinstance(value, np.generic):
        return True
    if _is_data(value):
        return True
    if kind not in _CONTAINERS or not depth:
        return False
    if kind is bytearray:
        return True
    if kind is defaultdict and not (value.default_factory is None or isinstance(value.default_factory, type)):
        return False
    held: Iterable[Any] = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict) and not all(is_plain(key, 3) for key in value):
        return False
    kinds = set(map(type, held))
    if kinds <= set(_ATOMS):
        return True
    return len(value) <= MOST_OBJECTS and all(is_plain(one, depth - 1) for one in held)


def _is_data(value: Any) -> bool:
    """A tensor or an array that is no parameter."""
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and not (value.requires_grad and value.is_leaf)
    return type(value) is np.ndarray and not value.dtype.hasobject


def _has_bytes(value: Any, most: int) -> bool:
    """There are more than ``most`` bytes of tensors in it."""
    waiting, total, looked = [value], 0, 0
    while waiting and looked < MOST_OBJECTS:
        one = waiting.pop()
        looked += 1
        if isinstance(one, (torch.Tensor, np.ndarray)):
            total += int(one.nbytes)
            if total > most:
                return True
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple, deque)):
            waiting.extend(one if len(one) <= MOST_OBJECTS else ())
    return False


def _is_generator(value: Any) -> bool:
    return isinstance(value, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random))


def _has_state(value: Any) -> bool:
    kind = type(value)
    return callable(getattr(kind, "state_dict", None)) and callable(getattr(kind, "load_state_dict", None))


def _held(owner: Any) -> dict[str, Any]:
    held = dict(getattr(owner, "__dict__", {}))
    for kind in type(owner).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(owner, name) and not name.startswith("__"):
                held.setdefault(name, getattr(owner, name))
    return held


def _key(name: Any) -> str:
    return name if isinstance(name, str) else repr(name)[:80]


def _set(owner: Any, name: str, value: Any) -> None:
    try:
        setattr(owner, name, value)
    except (AttributeError, TypeError):  # a frozen dataclass, a property: it was set otherwise
        try:
            object.__setattr__(owner, name, value)
        except (AttributeError, TypeError):
            pass
