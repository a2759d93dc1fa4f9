"""The way from a name to the object in it that cannot travel.

Pickle says that a lock cannot be pickled, not whose. Only after a failure, the
parts of the object are tried one by one, and the first that fails is followed.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from jupyter_train.transport.refusals import refusal

#: Tries to pickle an object and returns the error, None where it travels.
Trial = Callable[[Any], Exception | None]

_DEPTH = 40
_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """The innermost part that fails."""

    path: str  #: as Python code: ``loader.dataset.files['a'][0]``
    type_name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} ({self.type_name}) cannot travel to the ranks: {self.reason}"


def find_culprit(value: Any, path: str, trial: Trial, *, seconds: float = _SECONDS) -> Culprit | None:
    """The part of ``value`` that fails, or None where ``value`` travels.

    Args:
        value: the object.
        path: what the message calls it.
        trial: tries one object.
        seconds: after this time the part found so far is the answer.
    """
    error = trial(value)
    if error is None:
        return None
    until = time.monotonic() + seconds
    seen: set[int] = set()
    for _ in range(_DEPTH):
        seen.add(id(value))
        found = None
        if refusal(type(value)) is not None:
            break
        for part_path, part in _parts(value, path):
            if id(part) in seen:
                continue
            part_error = trial(part)
            if part_error is not None:
                found = part_path, part, part_error
                break
            if time.monotonic() > until:
                break
        if found is None:
            break
        path, value, error = found
    return Culprit(path=path, type_name=_type_name(value), reason=_reason(error))


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"{path}[{_short(key)}]", item
        for key in list(value):
            yield f"a key of {path}", key
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        for index, item in enumerate(list(value)):
            yield (
                (f"{path}[{index}]" if not isinstance(value, set | frozenset) else f"a member of {path}"),
                item,
            )
    if isinstance(value, FunctionType):
        yield from _function_parts(value, path)
    elif isinstance(value, MethodType):
        yield path.rpartition(".")[0] or f"{path}.__self__", value.__self__
        yield path, value.__func__
    elif isinstance(value, partial):
        yield f"{path}.func", value.func
        yield from _parts(value.args, f"{path}.args")
        yield from _parts(value.keywords, f"{path}.keywords")
    elif isinstance(value, staticmethod | classmethod):
        yield path, value.__func__
    elif isinstance(value, property):
        for function in (value.fget, value.fset, value.fdel):
            if function is not None:
                yield path, function
    elif isinstance(value, CellType):
        try:
            yield path, value.cell_contents
        except ValueError:
            return
    elif isinstance(value, type):
        for name, item in list(vars(value).items()):
            if not name.startswith("__") or callable(item):
                yield f"{path}.{name}", item
        for base in value.__bases__:
            yield base.__qualname__, base
    elif not isinstance(value, ModuleType):
        yield from _object_parts(value, path)


def _function_parts(function: FunctionType, path: str) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"{name} in the closure of {path}", cell.cell_contents
        except ValueError:
            continue
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    for name, default in zip(arguments[len(arguments) - len(defaults) :], defaults, strict=False):
        yield f"default {name} of {path}", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f"default {name} of {path}", default
    for name, item in function.__dict__.items():
        yield f"{path}.{name}", item


def _object_parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    attributes = getattr(value, "__dict__", None)
    is_module = (
        "_modules" in attributes and "_parameters" in attributes if isinstance(attributes, dict) else False
    )
    for name, item in list(attributes.items()) if isinstance(attributes, dict) else ():
        if is_module and name in ("_modules", "_parameters", "_buffers") and isinstance(item, dict):
            for inner, part in item.items():
                yield f"{path}.{inner}", part
        yield f"{path}.{name}", item
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield f"{path}.{name}", getattr(value, name)
    if type(value).__module__ == "__main__":
        yield f"type({path})", type(value)
    if not attributes:
        try:
            reduced = value.__reduce_ex__(5)
        except Exception:  # its own failure is the reason already at hand
            return
        if isinstance(reduced, tuple):
            for part in reduced[1:3]:
                if part is not None:
                    yield path, part


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _type_name(value: Any) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__")
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
