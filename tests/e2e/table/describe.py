"""What a notebook holds, as plain data that can be compared with another notebook's. Runs in the kernel.

A description is flat: a path (``model.0.weight``) to a text, a number or an array.
An object met before is told by its first path, one that was there before the cell by
its path then, so that ``is`` relations are part of it.
"""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import pickle
import random
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

_MOST_ITEMS = 2_000
_MOST_DEPTH = 40
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_PLAIN = (type(None), bool, int, str, bytes, type(...), type(NotImplemented), range, slice)
_OPAQUE = ("matplotlib.", "logging.", "logging", "ipykernel.", "IPython.", "_io.", "threading.", "_thread.")
_NOT_OF_A_CLASS = {
    "__dict__",
    "__weakref__",
    "__doc__",
    "__module__",
    "__qualname__",
    "__firstlineno__",
    "__static_attributes__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
    "__slotnames__",  # Python's own cache, made when an instance is pickled for the first time
    "__abstractmethods__",
    "_abc_impl",
}


def type_name(value: Any) -> str:
    """Module and name of the type of ``value``."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def digest(data: bytes) -> str:
    """Short, and the same only for the same bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


class Description:
    """One walk over named values.

    ``known`` maps the identity of what was there before to its path then; the
    objects must still be alive.
    """

    def __init__(
        self, globals_of_cells: Any, known: Mapping[int, str] | None = None, *, folder: str = "<folder>"
    ) -> None:
        self.leaves: dict[str, Any] = {}
        self.paths: dict[int, str] = {}
        self.alive: list[Any] = []  #: an identity means nothing once its object is gone
        self._globals = globals_of_cells
        self._known = known
        self._folder = folder  #: another one for each run of a case
        self._memory: list[tuple[str, Any]] = []  #: arrays that share none

    def add(self, path: str, value: Any, depth: int = 0) -> None:
        """Describe ``value`` below ``path``."""
        if isinstance(value, _PLAIN) and not isinstance(value, enum.Enum) and type(value) in _PLAIN:
            text = repr(value).replace(self._folder, "<folder>")
            self.leaves[path] = text if len(text) < 4_000 else f"{type_name(value)} {digest(text.encode())}"
        elif type(value) in (float, complex):
            self.leaves[path] = value
        elif depth > _MOST_DEPTH:
            self.leaves[path] = f"{type_name(value)}, too deep to be described"
        elif isinstance(value, types.ModuleType):
            self.leaves[path] = f"module {value.__name__}"
        elif isinstance(value, tuple | frozenset | types.MappingProxyType):
            self._add_content(path, value, depth)
        else:
            self._add_object(path, value, depth)

    def _add_object(self, path: str, value: Any, depth: int) -> None:
        if id(value) in self.paths:
            self.leaves[path] = f"is {self.paths[id(value)]}"
            return
        self.paths[id(value)] = path
        self.alive.append(value)
        if self._known is not None and id(value) in self._known:
            self.leaves[f"{path}: was"] = self._known[id(value)]
        self._add_content(path, value, depth)

    def _add_content(self, path: str, value: Any, depth: int) -> None:
        self.leaves[path] = type_name(value)
        numpy, torch, pandas = (sys.modules.get(name) for name in ("numpy", "torch", "pandas"))
        if numpy and isinstance(value, numpy.generic):
            self.leaves[f"{path}.item"] = value.item() if value.dtype.kind in "fciub" else str(value)
        elif numpy and isinstance(value, numpy.ndarray):
            self._add_array(path, value, depth)
        elif torch and isinstance(value, torch.Tensor):
            self._add_tensor(path, value, depth)
        elif torch and isinstance(value, torch.optim.Optimizer):
            self.add(f"{path}.param_groups", value.param_groups, depth + 1)
            self._add_mapping(f"{path}.state", value.state, depth + 1)
        elif pandas and isinstance(value, pandas.DataFrame):
            self.add(f"{path}.columns", value.columns.tolist(), depth + 1)
            self._add_column(f"{path}.index", value.index)
            for name in value.columns:
                self._add_column(f"{path}[{name!r}]", value[name])
        elif pandas and isinstance(value, pandas.Series | pandas.Index):
            self._add_column(path, value)
            if isinstance(value, pandas.Series):
                self._add_column(f"{path}.index", value.index)
        elif isinstance(value, types.FunctionType):
            self._add_function(path, value, depth)
        elif isinstance(value, type):
            self._add_class(path, value, depth)
        elif (state := _random_state(value)) is not None:
            self.leaves[f"{path}.state"] = digest(state)
        else:
            self._add_any(path, value, depth)

    def _add_any(self, path: str, value: Any, depth: int) -> None:
        deeper = depth + 1
        described = True
        if isinstance(value, enum.Enum):
            self.leaves[path] += f" {value!r}"
            return
        if type_name(value).startswith(_OPAQUE):
            return
        if isinstance(value, Mapping):
            self._add_mapping(path, value, deeper)
        elif isinstance(value, tuple | list | collections.deque):
            self.leaves[f"{path}: length"] = str(len(value))
            for index, item in enumerate(list(value)[:_MOST_ITEMS]):
                self.add(f"{path}[{index}]", item, deeper)
        elif isinstance(value, set | frozenset):
            self.leaves[f"{path}: members"] = ", ".join(sorted(map(_without_address, value)))
        elif isinstance(value, BaseException):
            self.add(f"{path}.args", value.args, deeper)
        elif isinstance(value, functools.partial):
            self.add(f"{path}.func", value.func, deeper)
            self.add(f"{path}.args", [*value.args, value.keywords], deeper)
        elif isinstance(value, types.MethodType):
            self.add(f"{path}.__func__", value.__func__, deeper)
            self.add(f"{path}.__self__", value.__self__, deeper)
        elif isinstance(value, staticmethod | classmethod):
            self.add(f"{path}.__func__", value.__func__, deeper)
        elif isinstance(value, property):
            self.add(f"{path}.fget", value.fget, deeper)
        else:
            described = False
        attributes = _attributes(value)
        for name in sorted(attributes):
            self.add(f"{path}.{name}", attributes[name], deeper)
        if not described and not attributes:
            self.leaves[path] += f" {_without_address(value)}"

    def _add_mapping(self, path: str, value: Mapping[Any, Any], depth: int) -> None:
        labels = [self._label(key, index) for index, key in enumerate(value)]
        self.leaves[f"{path}: keys"] = ", ".join(labels)
        for label, item in list(zip(labels, value.values(), strict=True))[:_MOST_ITEMS]:
            self.add(f"{path}[{label}]", item, depth)
        if isinstance(value, collections.defaultdict):
            self.add(f"{path}.default_factory", value.default_factory, depth)

    def _label(self, key: Any, index: int) -> str:
        if id(key) in self.paths:
            return self.paths[id(key)]
        return _without_address(key) if isinstance(key, (*_PLAIN, float, tuple, enum.Enum)) else f"#{index}"

    def _add_array(self, path: str, value: Any, depth: int) -> None:
        self.leaves[f"{path}: form"] = f"{value.dtype} {value.shape} writeable={value.flags.writeable}"
        if value.dtype == object:
            self.add(f"{path}: items", value.ravel().tolist(), depth + 1)
            return
        self.leaves[f"{path}: values"] = _comparable(value)
        self._add_memory(path, value)

    def _add_tensor(self, path: str, value: Any, depth: int) -> None:
        plain = value.detach()
        self.leaves[f"{path}: form"] = f"{value.dtype} {tuple(value.shape)} {value.device}"
        if plain.layout is sys.modules["torch"].strided and plain.device.type == "cpu":
            self.leaves[f"{path}: values"] = _comparable(plain.resolve_conj().resolve_neg().float().numpy())
            has_array = (
                plain.dtype != sys.modules["torch"].bfloat16 and not plain.is_conj() and not plain.is_neg()
            )
            self._add_memory(path, plain.numpy() if has_array else None)
        if not value.is_leaf:
            self.leaves[f"{path}: graph"] = "there"
            return
        if value.requires_grad:
            self.leaves[f"{path}.requires_grad"] = "True"
        if value.grad is not None:
            self.add(f"{path}.grad", value.grad, depth + 1)

    def _add_memory(self, path: str, array: Any) -> None:
        """Tell of the first array some of whose elements are some of these."""
        import numpy as np

        for first, other in self._memory if array is not None else ():
            if np.may_share_memory(array, other) and np.shares_memory(array, other):
                self.leaves[f"{path}: memory"] = f"of {first}"
                return
        if array is not None and array.size:
            self._memory.append((path, array))

    def _add_column(self, path: str, value: Any) -> None:
        self.leaves[f"{path}: form"] = f"{value.dtype} {len(value)} {getattr(value, 'name', None)!r}"
        if value.dtype.kind in "fiub":
            self.leaves[f"{path}: values"] = value.to_numpy()
        else:
            self.leaves[f"{path}: values"] = digest(repr(value.tolist()).encode())

    def _add_function(self, path: str, value: types.FunctionType, depth: int) -> None:
        code = value.__code__
        of_cells = value.__globals__ is self._globals
        self.leaves[path] = (
            f"function {value.__module__}.{value.__qualname__} {digest(code.co_code)} of_cells={of_cells}"
        )
        if not of_cells:
            return
        self.add(f"{path}: defaults", value.__defaults__, depth + 1)
        self.add(f"{path}: kwdefaults", value.__kwdefaults__, depth + 1)
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            try:
                self.add(f"{path}: {name}", cell.cell_contents, depth + 1)
            except ValueError:
                self.leaves[f"{path}: {name}"] = "unset"
        for name, item in sorted(vars(value).items()):
            self.add(f"{path}.{name}", item, depth + 1)

    def _add_class(self, path: str, value: type, depth: int) -> None:
        self.leaves[path] = f"class {value.__module__}.{value.__qualname__}"
        if value.__module__ != "__main__":
            return
        self.add(f"{path}: bases", value.__bases__, depth + 1)
        for name, item in sorted(vars(value).items()):
            if name not in _NOT_OF_A_CLASS and not isinstance(item, types.MemberDescriptorType):
                self.add(f"{path}.{name}", item, depth + 1)


def _attributes(value: Any) -> dict[str, Any]:
    attributes = dict(getattr(value, "__dict__", None) or {})
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                attributes[name] = getattr(value, name)
    # torch keeps a dozen empty tables of hooks in every module; what only repeats the class changes nothing.
    return {
        name: item
        for name, item in attributes.items()
        if not (name.startswith("_") and isinstance(item, Mapping) and not item)
        and not (item is None and getattr(type(value), name, ...) is None)
    }


def _random_state(value: Any) -> bytes | None:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if isinstance(value, random.Random):
        return repr(value.getstate()).encode()
    if numpy and isinstance(value, numpy.random.Generator):
        return repr(value.bit_generator.state).encode()
    if numpy and isinstance(value, numpy.random.RandomState):
        return pickle.dumps(value.get_state(legacy=True))
    if torch and isinstance(value, torch.Generator):
        return bytes(value.get_state().tolist())
    return None


def _comparable(array: Any) -> Any:
    """Numbers as an array of 64-bit floats, everything else as a text."""
    import numpy as np

    if array.dtype.kind in "fiub":
        return np.array(array, dtype=np.float64)
    if array.dtype.kind == "c":
        return np.stack([array.real, array.imag]).astype(np.float64)
    return digest(repr(array.tolist()).encode())


def _without_address(value: Any) -> str:
    try:
        return _ADDRESS.sub("0x…", repr(value))[:2_000]
    except Exception as error:  # a class of anybody's
        return f"its repr raises {type(error).__name__}"
