"""Live state → values that ``torch.load(weights_only=True)`` takes: numbers, texts, lists, dicts and tensors.

What such a file cannot say is written as a dict with the key :data:`KIND`. Objects
that one refers to twice are the same object in the file, too, and tensors that share
memory share it there. Torch is imported when the first value is frozen.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Protocol

KIND = "\0kind"  #: key of what is not a plain dict; no other dict has it
DEEPEST = 60

_ATOMS = (type(None), bool, int, float, str, complex)
_KEYS = (type(None), bool, int, float, str, bytes)


class CannotKeep(TypeError):
    """A value has no form in which a checkpoint could hold it."""


class Copies(Protocol):
    """Who copies tensors: gives a tensor that holds the copy once all are made."""

    def add(self, tensor: Any) -> Any:
        """A tensor that will hold the copy of ``tensor``."""


class Shards(Protocol):
    """Who takes tensors of which each rank has a part: `jupyter_train.runtime.checkpoint.sharded.Shards`."""

    def add(self, tensor: Any, at: str) -> dict[str, Any]:
        """What stands for the whole of ``tensor`` in the file; ``at`` is alike on all ranks."""


class Freezer:
    """Freezes values; what it has met it knows again. For one snapshot, by one thread.

    Args:
        copies: who copies the tensors.
        shards: takes tensors of which each rank has a part.
        grads: whether gradients are kept with the parameters that have them.
    """

    def __init__(self, copies: Copies, *, shards: Shards | None = None, grads: bool = True) -> None:
        self._copies = copies
        self._shards = shards
        self._grads = grads
        self._known: dict[int, tuple[Any, Any]] = {}

    def freeze(self, value: Any, label: str) -> Any:
        """``value`` as it is now.

        Raises:
            CannotKeep: something in it cannot be kept; says what and where.
        """
        return self._freeze(value, label, 0)

    def _freeze(self, value: Any, at: str, depth: int) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if (known := self._known.get(id(value))) is not None:
            return known[1]
        if depth > DEEPEST:
            raise CannotKeep(f"{at} is nested more than {DEEPEST} levels deep")
        if (container := _CONTAINERS.get(kind)) is not None:
            return container(self, value, at, depth)
        frozen = self._other(value, at, depth)
        self._known[id(value)] = (value, frozen)
        return frozen

    def known(self, value: Any, frozen: Any) -> Any:
        """Note what ``value`` became, before what is in it is looked at: it may hold itself."""
        self._known[id(value)] = (value, frozen)
        return frozen

    def parts(self, values: Iterable[Any], at: str, depth: int) -> list[Any]:
        """Each of ``values``."""
        return [self._freeze(value, f"{at}[{k}]", depth + 1) for k, value in enumerate(values)]

    def mapping(self, frozen: dict[Any, Any], value: Mapping[Any, Any], at: str, depth: int) -> Any:
        """Fill ``frozen`` with what is in ``value``."""
        if all(type(key) in _KEYS and key != KIND for key in value):
            for key, one in value.items():
                frozen[key] = self._freeze(one, f"{at}[{key!r}]", depth + 1)
            return frozen
        items = [
            [
                self._freeze(key, f"a key of {at}", depth + 1),
                self._freeze(one, f"{at}[{key!r:.60}]", depth + 1),
            ]
            for key, one in value.items()
        ]
        frozen.update({KIND: "dict", "items": items})
        return frozen

    def _other(self, value: Any, at: str, depth: int) -> Any:
        import numpy as np
        import torch

        if isinstance(value, torch.nn.Module):
            return self._module(value, at, depth)
        if isinstance(value, torch.Tensor):
            return self._tensor(value, at)
        if isinstance(value, torch.optim.Optimizer):
            return self._object(value, "optimizer", at, depth)
        if isinstance(value, torch.Generator):
            return {
                KIND: "generator",
                "device": str(value.device),
                "state": self._copies.add(value.get_state()),
            }
        if type(value) is np.ndarray:
            return self._array(value, at)
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            described = np.lib.format.dtype_to_descr(value.dtype)
            return {KIND: "scalar", "dtype": described, "data": value.tobytes()}
        if isinstance(value, np.random.Generator):
            return self._random("numpy", value.bit_generator.state, at, depth)
        if isinstance(value, np.random.RandomState):
            return self._random("numpy legacy", value.get_state(legacy=False), at, depth)
        if isinstance(value, random.Random):
            return self._random("python", value.getstate(), at, depth)
        if isinstance(value, (torch.dtype, torch.device, torch.Size)):
            return value
        if isinstance(value, bytes):
            return value
        if _has_state(value):
            return self._object(value, "object", at, depth)
        raise CannotKeep(
            f"{at} is of the type {_type_name(value)}, which has no state_dict and is no plain value"
        )

    def _tensor(self, tensor: Any, at: str) -> Any:
        import torch

        from jupyter_train.runtime.checkpoint.sharded import is_sharded

        if self._shards is not None and is_sharded(tensor):
            return self._shards.add(tensor, at)
        kind = type(tensor)
        if kind is not torch.Tensor and kind is not torch.nn.Parameter:
            raise CannotKeep(f"{at} is a {_type_name(tensor)}, a kind of tensor that cannot be copied here")
        if tensor.is_meta or tensor.is_quantized or tensor.layout is not torch.strided:
            raise CannotKeep(
                f"{at} is a tensor on {tensor.device} of layout {tensor.layout}, which cannot be kept"
            )
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        copy = self._copies.add(tensor.detach())
        is_leaf = tensor.requires_grad and tensor.is_leaf
        if not is_leaf and tensor.device.type == "cpu":
            return copy
        frozen: dict[str, Any] = {KIND: "tensor", "data": copy, "device": tensor.device.type}
        if is_leaf:
            frozen["requires_grad"] = True
            frozen["parameter"] = isinstance(tensor, torch.nn.Parameter)
            if self._grads and tensor.grad is not None:
                frozen["grad"] = self._freeze(tensor.grad, f"{at}.grad", 0)
        return frozen

    def _array(self, array: Any, at: str) -> Any:
        import numpy as np
        import torch

        if array.dtype.hasobject:
            raise CannotKeep(f"{at} is an array of Python objects")
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.size else np.empty(0, np.uint8)
        data = self._copies.add(torch.from_numpy(flat if flat.flags.writeable else flat.copy()))
        described = np.lib.format.dtype_to_descr(array.dtype)
        return {KIND: "array", "dtype": described, "shape": tuple(array.shape), "data": data}

    def _random(self, of: str, state: Any, at: str, depth: int) -> Any:
        return {KIND: "random", "of": of, "state": self._freeze(state, at, depth + 1)}

    def _module(self, module: Any, at: str, depth: int) -> Any:
        state = module.state_dict()
        frozen: dict[str, Any] = {KIND: "module", "type": _type_name(module)}
        # Before what is in it: a module may hold another one's state in its own.
        self.known(module, frozen)
        frozen["state"] = {name: self._entry(one, f"{at}.{name}", depth) for name, one in state.items()}
        buffers = {name: one for name, one in module.named_buffers() if name not in state}
        frozen["buffers"] = {
            name: self._freeze(one, f"{at}.{name}", depth + 1) for name, one in buffers.items()
        }
        frozen["evaluating"] = [name for name, one in module.named_modules() if not one.training]
        parameters = list(module.named_parameters())
        frozen["fixed"] = [name for name, one in parameters if not one.requires_grad]
        if self._grads:
            frozen["grads"] = {
                name: self._freeze(one.grad, f"{at}.{name}.grad", depth + 1)
                for name, one in parameters
                if one.grad is not None
            }
        return frozen

    def _entry(self, value: Any, at: str, depth: int) -> Any:
        """A value of a module's state: tensors without what else is known of them."""
        import torch

        if type(value) is torch.Tensor and value.layout is torch.strided and not value.is_meta:
            return self._copies.add(value.detach())
        return self._freeze(value, at, depth + 1)

    def _object(self, value: Any, kind: str, at: str, depth: int) -> Any:
        state = value.state_dict()
        frozen: dict[str, Any] = {KIND: kind, "type": _type_name(value)}
        self.known(value, frozen)
        left: list[str] = []
        if type(state) is dict and kind == "object":
            # Functions, such as the one by which a schedule goes, are the code's, not the state's.
            left = [name for name, one in state.items() if isinstance(name, str) and _is_code(one)]
            state = {name: one for name, one in state.items() if name not in left}
        frozen["state"] = self._freeze(state, at, depth + 1)
        if left:
            frozen["code"] = left
        return frozen


def _list(freezer: Freezer, value: list[Any], at: str, depth: int) -> Any:
    frozen: list[Any] = []
    freezer.known(value, frozen)
    frozen.extend(freezer.parts(value, at, depth))
    return frozen


def _tuple(freezer: Freezer, value: tuple[Any, ...], at: str, depth: int) -> Any:
    return freezer.known(value, tuple(freezer.parts(value, at, depth)))


def _dict(freezer: Freezer, value: dict[Any, Any], at: str, depth: int) -> Any:
    return freezer.mapping(freezer.known(value, {}), value, at, depth)


def _special_dict(freezer: Freezer, value: Mapping[Any, Any], at: str, depth: int) -> Any:
    frozen: dict[str, Any] = freezer.known(value, {KIND: "dict like", "type": type(value).__name__})
    items: list[Any] = []
    frozen["items"] = items
    for key, one in value.items():
        items.append(freezer.parts((key, one), f"{at}[{key!r:.60}]", depth))
    return frozen


def _set(freezer: Freezer, value: set[Any] | frozenset[Any], at: str, depth: int) -> Any:
    # As the set hands its members out: that order is what a loop over it sees, as far as it can be set back.
    return freezer.known(value, {KIND: type(value).__name__, "items": freezer.parts(value, at, depth)})


def _deque(freezer: Freezer, value: deque[Any], at: str, depth: int) -> Any:
    frozen: dict[str, Any] = freezer.known(value, {KIND: "deque", "maxlen": value.maxlen})
    frozen["items"] = freezer.parts(value, at, depth)
    return frozen


def _bytearray(freezer: Freezer, value: bytearray, at: str, depth: int) -> Any:
    del at, depth
    return freezer.known(value, {KIND: "bytearray", "data": bytes(value)})


def _bounds(freezer: Freezer, value: range | slice, at: str, depth: int) -> Any:
    bounds = (value.start, value.stop, value.step)
    return freezer.known(value, {KIND: type(value).__name__, "items": freezer.parts(bounds, at, depth)})


_CONTAINERS: dict[type, Callable[[Freezer, Any, str, int], Any]] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
    OrderedDict: _special_dict,
    Counter: _special_dict,
    defaultdict: _special_dict,
    set: _set,
    frozenset: _set,
    deque: _deque,
    bytearray: _bytearray,
    range: _bounds,
    slice: _bounds,
}


def _has_state(value: Any) -> bool:
    kind = type(value)
    return callable(getattr(kind, "state_dict", None)) and callable(getattr(kind, "load_state_dict", None))


def _is_code(value: Any) -> bool:
    return isinstance(value, (FunctionType, BuiltinFunctionType, MethodType, type))


def _type_name(value: Any) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
