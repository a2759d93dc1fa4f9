"""Which tensors are parameters, under numbers that are the same on all ranks."""

from __future__ import annotations

import functools
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from jupyter_train.runtime.parallel.patches import Patches

MOST_NODES = 200_000
MOST_ITEMS = 1000


class Registry:
    """Numbers parameters in the order in which they are learned, which is the same on all ranks.

    Nothing is kept alive by being known here. Main thread of a rank.
    """

    def __init__(self) -> None:
        #: called with a parameter's number, and the parameter, when its gradient is complete
        self.on_gradient: Callable[[int, torch.Tensor], None] | None = None
        self._numbers: dict[int, tuple[int, weakref.ref[torch.Tensor]]] = {}
        self._frozen: list[tuple[int, weakref.ref[torch.Tensor]]] = []  #: or not initialised yet: no hook
        self._hooks: list[Any] = []
        self.count = 0
        self.has_news = False  #: parameters were made or given to an optimizer that are not numbered yet

    def install(self, patches: Patches) -> None:
        """Notice parameters that are made while the cell runs."""
        handle = register_module_parameter_registration_hook(lambda _, __, new: self._made(new))
        patches.on_undo(handle.remove)
        original = torch.optim.Optimizer.add_param_group

        def add_param_group(optimizer: Any, group: dict[str, Any]) -> None:
            original(optimizer, group)
            for parameter in optimizer.param_groups[-1]["params"]:
                self._made(parameter)

        patches.replace(torch.optim.Optimizer, "add_param_group", add_param_group)

    def _made(self, tensor: torch.Tensor | None) -> None:
        if tensor is not None and self.number(tensor) is None:
            self.has_news = True

    def number(self, tensor: torch.Tensor) -> int | None:
        """The number of a known parameter."""
        known = self._numbers.get(id(tensor))
        return known[0] if known is not None and known[1]() is tensor else None

    def alive(self) -> dict[int, torch.Tensor]:
        """All known parameters that are alive, by number."""
        out = {}
        for key, (number, ref) in list(self._numbers.items()):
            tensor = ref()
            if tensor is None:
                del self._numbers[key]
            else:
                out[number] = tensor
        return out

    def learn(self, tensor: torch.Tensor) -> None:
        """Give ``tensor`` the next number."""
        if self.number(tensor) is None:
            number = self.count
            self.count += 1
            self._numbers[id(tensor)] = (number, weakref.ref(tensor))
            self._hook(number, tensor)

    def _hook(self, number: int, tensor: torch.Tensor) -> None:
        lazy = is_lazy(tensor)
        if lazy or not tensor.requires_grad or not tensor.is_leaf:
            self._frozen.append((number, weakref.ref(tensor)))
            return
        if self.on_gradient is not None:
            # No function of ours between torch and the one that counts: it runs for every gradient of every step.
            hook = functools.partial(self.on_gradient, number)
            self._hooks.append(tensor.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]

    def wake(self) -> None:
        """Watch those that have begun to take gradients."""
        if self._frozen:
            frozen, self._frozen = self._frozen, []
            for number, ref in frozen:
                tensor = ref()
                if tensor is not None:
                    self._hook(number, tensor)

    def forget_hooks(self) -> None:
        """Take the hooks off all parameters: the cell has ended."""
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            hook.remove()


def is_lazy(tensor: torch.Tensor) -> bool:
    """A parameter of a lazy module that has no shape yet."""
    return isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer))


def checksum(tensor: torch.Tensor) -> int:
    """A digest of the values; the same on ranks that hold the same."""
    if is_lazy(tensor):
        return 0
    data = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(data.numpy().data)


def leaves(roots: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The leaves of the graphs of ``roots`` (grad_fn nodes), in a fixed order."""
    seen: set[Any] = set()
    stack = [node for node in roots if node is not None]
    while stack and len(seen) < MOST_NODES:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        stack.extend(child for child, _ in node.next_functions if child is not None)


def owners(namespaces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Names of the cell that hold models, optimizers or containers of them; the first namespace wins."""
    out: dict[str, Any] = {}
    for namespace in namespaces:
        for name, value in list(namespace.items()):
            if isinstance(name, str) and name not in out and next(in_names(value), None) is not None:
                out[name] = value
    return out


def in_names(value: Any) -> Iterator[torch.Tensor]:
    """Parameters owned by ``value``, in an order that is the same on all ranks; plain tensors are not told from data.

    Looks a few levels into containers and the cell's own objects, and not
    through data: after MOST_ITEMS it gives up.
    """
    stack: list[tuple[Any, int]] = [(value, 3)]
    seen = 0
    while stack and seen < MOST_ITEMS:
        one, depth = stack.pop()
        seen += 1
        if isinstance(one, nn.Module):
            yield from one.parameters()
        elif isinstance(one, torch.optim.Optimizer):
            for group in one.param_groups:
                yield from group["params"]
        elif isinstance(one, nn.Parameter):
            yield one
        elif depth:
            stack.extend((inner, depth - 1) for inner in inside(one))


def inside(value: Any) -> list[Any]:
    """What a small container or an object of the cell holds, the first last."""
    if isinstance(value, (list, tuple)):
        held = list(value)
    elif isinstance(value, dict):
        held = list(value.values())
    elif type(value).__module__ == "__main__" and hasattr(value, "__dict__"):
        held = list(vars(value).values())
    else:
        return []
    return held[::-1] if len(held) <= MOST_ITEMS else []
