"""The cell's own names for its parameters and buffers: the same in a rank and in a process that runs the cell alone."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from jupyter_train.runtime.parallel.registry import leaves
from jupyter_train.runtime.parallel.sites import Sites

DEEPEST = 3
MOST_ITEMS = 2000
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class Named:
    """Tensors by name; of several names the first one found, locals before globals."""

    def __init__(self) -> None:
        self.parameters: dict[str, torch.Tensor] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        self.modules: dict[str, nn.Module] = {}
        self.generators: list[Any] = []  #: of random numbers, the cell's own
        self._seen: set[int] = set()

    def add_parameter(self, name: str, tensor: torch.Tensor) -> None:
        """``tensor`` is called ``name``, unless it has a name already."""
        if id(tensor) not in self._seen and not _is_odd(tensor):
            self._seen.add(id(tensor))
            self.parameters.setdefault(name, tensor)

    def add_module(self, name: str, module: nn.Module) -> None:
        """All that ``module`` holds."""
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        self.modules.setdefault(name, module)
        for inner, parameter in module.named_parameters():
            self.add_parameter(f"{name}.{inner}", parameter)
        for inner, buffer in module.named_buffers():
            if buffer.is_floating_point() and id(buffer) not in self._seen and not _is_odd(buffer):
                self._seen.add(id(buffer))
                self.buffers.setdefault(f"{name}.{inner}", buffer)

    def knows(self, tensor: torch.Tensor) -> bool:
        """It has a name."""
        return id(tensor) in self._seen


def find(frame: FrameType | None, sites: Sites, roots: Iterable[torch.Tensor]) -> Named:
    """What the user's line at ``frame`` and those who called it can see, and what the graphs of ``roots`` hold besides."""
    named = Named()
    left = MOST_ITEMS
    for namespace in _namespaces(frame, sites):
        for name, value in list(namespace.items()):
            if isinstance(name, str) and not name.startswith("__"):
                left -= _walk(named, name, value)
            if left <= 0:
                break
    _add_leaves(named, roots)
    return named


def _namespaces(frame: FrameType | None, sites: Sites) -> Iterator[Mapping[str, Any]]:
    met: list[Mapping[str, Any]] = []
    while frame is not None:
        if frame.f_locals is not frame.f_globals:
            yield frame.f_locals
        if not any(frame.f_globals is one for one in met):
            met.append(frame.f_globals)
        if frame.f_code.co_filename == sites.cell_file and frame.f_code.co_name == "<module>":
            break
        frame = sites.outer(frame)
    yield from met


def _walk(named: Named, name: str, value: Any) -> int:
    """Add what ``value`` owns; how many things were looked at."""
    stack: list[tuple[str, Any, int]] = [(name, value, DEEPEST)]
    seen = 0
    while stack and seen < MOST_ITEMS:
        label, one, depth = stack.pop()
        seen += 1
        if isinstance(one, nn.Module):
            named.add_module(label, one)
        elif isinstance(one, torch.optim.Optimizer):
            for group, settings in enumerate(one.param_groups):
                for number, parameter in enumerate(settings["params"]):
                    named.add_parameter(f"{label}[{group}][{number}]", parameter)
        elif isinstance(one, GENERATORS):
            named.generators.append(one)
        elif isinstance(one, torch.Tensor):
            if one.is_leaf and one.requires_grad:
                named.add_parameter(label, one)
        elif depth:
            room = MOST_ITEMS - seen - len(stack)
            stack.extend((inner, held, depth - 1) for inner, held in _inside(label, one, max(0, room)))
    return seen


def _inside(label: str, value: Any, most: int) -> list[tuple[str, Any]]:
    """What a container or an object of the user's holds, the first last; no numbers and texts, and ``most`` things."""
    if isinstance(value, (list, tuple)):
        held = [(f"{label}[{number}]", one) for number, one in enumerate(value[:most])]
    elif isinstance(value, dict):
        held = [(f"{label}[{key!r}]", one) for key, one in islice(value.items(), most)]
    elif type(value).__module__ == "__main__" and hasattr(value, "__dict__"):
        held = [(f"{label}.{key}", one) for key, one in islice(vars(value).items(), most)]
    else:
        return []
    return [(name, one) for name, one in held[::-1] if not isinstance(one, (int, float, str, bytes))]


def _add_leaves(named: Named, roots: Iterable[torch.Tensor]) -> None:
    """Parameters that nothing names, by shape and place in the graph. Plain tensors may be data: they are left out."""
    counts: dict[tuple[int, ...], int] = {}
    for leaf in leaves([root.grad_fn for root in roots]):
        if named.knows(leaf) or not isinstance(leaf, nn.Parameter):
            continue
        shape = tuple(leaf.shape)
        counts[shape] = counts.get(shape, 0) + 1
        named.add_parameter(f"a parameter {'×'.join(map(str, shape))} ({counts[shape]})", leaf)


def _is_odd(tensor: torch.Tensor) -> bool:
    """Its entries cannot be sampled."""
    lazy = isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer))
    return lazy or tensor.layout is not torch.strided
