"""From which captured names an object can be reached: what a change of it is called."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

from jupyter_train.transport.load import Loaded


def names_by_object(
    loaded: Loaded, numbers: set[int], roots: Iterable[tuple[str, Any]]
) -> dict[int, list[str]]:
    """By number, the names of ``roots`` from which each of the captured objects can be reached."""
    wanted = {id(loaded.objects[number]): number for number in numbers}
    found: dict[int, list[str]] = {}
    if not wanted:
        return found
    for name, value in roots:
        for number in _reached(value, wanted):
            names = found.setdefault(number, [])
            if name not in names:
                names.append(name)
    return found


#: Where a search for objects ends: what these refer to belongs to everybody.
_CLOSED = (
    type,
    ModuleType,
    BuiltinFunctionType,
    CodeType,
    FrameType,
    TracebackType,
    logging.Logger,
    str,
    int,
    float,
    bytes,
)

#: Objects looked at for one name at most, against a way into the insides of some library.
_MOST = 5_000_000

#: A list of a million numbers is passed over at the speed of C.
_LEAVES = frozenset({str, int, float, bytes, bool, complex, type(None)})
_MANY = 100


def _reached(root: Any, wanted: dict[int, int]) -> set[int]:
    seen: set[int] = set()
    todo = [root]
    reached: set[int] = set()
    while todo and len(seen) < _MOST:
        value = todo.pop()
        if id(value) in seen or isinstance(value, _CLOSED):
            continue
        seen.add(id(value))
        if id(value) in wanted:
            reached.add(wanted[id(value)])
            if len(reached) == len(wanted):
                break
        if isinstance(value, FunctionType):
            todo += [value.__dict__, *(value.__closure__ or ()), *(value.__defaults__ or ())]
        else:
            parts = gc.get_referents(value)
            if len(parts) < _MANY or not _LEAVES.issuperset(map(type, parts)):
                todo += parts
    return reached
