"""The namespaces that a training loop can see: which of their names its code sets and which it reads, and how they are set back."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType, FunctionType
from typing import Any

MAIN = "main"  #: key of the cell's own namespace
DEEPEST = 4  #: calls deep


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One namespace, as it is now."""

    key: str  #: the same in every attempt
    names: Mapping[str, Any]
    bound: frozenset[str]  #: names that the loop's code sets
    read: frozenset[str]  #: names that it reads
    targets: frozenset[str]  #: names that the loop over the data sets with each batch
    is_outer: bool  #: it was there before the loop began, so that all of it counts
    assign: Callable[[str, Any], None]


def scopes(frames: Sequence[FrameType], body: Sequence[dis.Instruction] | None) -> list[Scope]:
    """What the loop in ``frames[0]`` sees, down to the innermost frame ``frames[-1]``.

    Args:
        frames: of the user's code, the loop over epochs first.
        body: instructions of that loop; None: all of its frame's code.
    """
    found: dict[str, Scope] = {}
    main: FrameType | None = None
    for depth, frame in enumerate(frames):
        bound, read = _names(tuple(body)) if body is not None and not depth else _names_of(frame.f_code)
        targets = _targets(frame.f_code, frame.f_lasti)
        if frame.f_locals is frame.f_globals:
            main = main or frame
            key = _key_of(frame.f_globals)
            before = found.get(key)
            if before is not None:
                bound, read, targets = bound | before.bound, read | before.read, targets | before.targets
            found[key] = _of_module(key, frame.f_globals, bound, read, targets)
        else:
            key = f"{depth}:{_qualified(frame.f_code)}"
            names = dict(frame.f_locals)
            found[key] = Scope(
                key=key,
                names=names,
                bound=bound,
                read=read,
                targets=targets,
                is_outer=not depth,
                assign=_local(frame),
            )
    for frame in frames:
        key = _key_of(frame.f_globals)
        if key not in found:
            bound, read = _globals_of(frame.f_code)
            found[key] = _of_module(key, frame.f_globals, bound, read, frozenset())
    return [_with_what_is_called(scope) if scope.is_outer else scope for scope in found.values()]


def _of_module(
    key: str,
    names: dict[str, Any],
    bound: frozenset[str],
    read: frozenset[str],
    targets: frozenset[str],
) -> Scope:
    return Scope(
        key=key,
        names=names,
        bound=bound,
        read=read,
        targets=targets,
        is_outer=True,
        assign=names.__setitem__,
    )


def _key_of(names: Mapping[str, Any]) -> str:
    name = str(names.get("__name__", "__main__"))
    return MAIN if name in ("__main__", "builtins") else f"module {name}"


def _with_what_is_called(scope: Scope) -> Scope:
    """Also the names of modules that functions set (``global step``) or read, which the loop calls."""
    bound, read = set(scope.bound), set(scope.read)
    seen: set[CodeType] = set()
    waiting = [(name, DEEPEST) for name in scope.read]
    while waiting:
        name, depth = waiting.pop()
        for code in _codes(scope.names.get(name)):
            if code in seen or not depth:
                continue
            seen.add(code)
            sets, reads = _globals_of(code)
            bound |= sets
            read |= reads
            waiting.extend((one, depth - 1) for one in reads)
    return Scope(
        key=scope.key,
        names=scope.names,
        bound=frozenset(bound),
        read=frozenset(read),
        targets=scope.targets,
        is_outer=scope.is_outer,
        assign=scope.assign,
    )


def _codes(value: Any) -> Iterator[CodeType]:
    """The user's code that calling ``value``, or a method of it, runs."""
    value = getattr(value, "__func__", value)
    if isinstance(value, FunctionType):
        yield value.__code__
        return
    kind = value if isinstance(value, type) else type(value)
    if is_users(kind):
        for method in vars(kind).values():
            one = getattr(method, "__func__", method)
            if isinstance(one, FunctionType):
                yield one.__code__


def is_users(kind: type) -> bool:
    """A class of the notebook, or of a module beside it."""
    module = kind.__module__
    if module == "__main__":
        return True
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "jupyter_train":
        return False
    file = str(getattr(sys.modules.get(top), "__file__", None) or "site-packages")
    return "site-packages" not in file and "dist-packages" not in file


def _local(frame: FrameType) -> Callable[[str, Any], None]:
    """Sets a variable of a function that is running."""

    def assign(name: str, value: Any) -> None:
        frame.f_locals[name] = value
        if sys.version_info < (3, 13):
            import ctypes

            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))

    return assign


def _qualified(code: CodeType) -> str:
    return str(getattr(code, "co_qualname", code.co_name))


@lru_cache(maxsize=512)
def _names_of(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    return _names(tuple(dis.get_instructions(code)))


def _names(steps: Sequence[dis.Instruction]) -> tuple[frozenset[str], frozenset[str]]:
    """Names that ``steps`` set, and those that they read, also in functions that are made there."""
    bound: set[str] = set()
    read: set[str] = set()
    for step in steps:
        if isinstance(step.argval, CodeType):
            sets, reads = _names_of(step.argval)
            free = frozenset(step.argval.co_freevars)
            inside = {
                name
                for one in dis.get_instructions(step.argval)
                for name in _argument(one)
                if "GLOBAL" in one.opname
            }
            bound |= sets & (free | inside)
            read |= reads & (free | inside)
            continue
        if step.opname.startswith(("STORE_NAME", "STORE_GLOBAL", "STORE_FAST", "STORE_DEREF")):
            bound.update(_argument(step))
        if step.opname.startswith(("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")):
            read.update(_argument(step))
    return frozenset(bound), frozenset(read)


def _globals_of(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    bound: set[str] = set()
    read: set[str] = set()
    for step in dis.get_instructions(code):
        if isinstance(step.argval, CodeType):
            sets, reads = _globals_of(step.argval)
            bound |= sets
            read |= reads
        elif step.opname in ("STORE_GLOBAL", "STORE_NAME"):
            bound.update(_argument(step))
        elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.update(_argument(step))
    return frozenset(bound), frozenset(read)


def _argument(step: dis.Instruction) -> tuple[str, ...]:
    """Names in the argument of an instruction; Python 3.13 has some with two."""
    argument = step.argval
    if isinstance(argument, str):
        return (argument,)
    return tuple(one for one in argument if isinstance(one, str)) if isinstance(argument, tuple) else ()


def _targets(code: CodeType, at: int) -> frozenset[str]:
    """Names that the for loop, at whose head the instruction at ``at`` stands, sets first."""
    steps = list(dis.get_instructions(code))
    position = max((k for k, step in enumerate(steps) if step.offset <= at), default=0)
    found: set[str] = set()
    for step in steps[position:]:
        if step.opname.startswith("STORE_"):
            found.update(_argument(step))
        elif found or not step.opname.startswith(
            ("FOR_ITER", "UNPACK", "GET_ITER", "CACHE", "EXTENDED", "PRECALL", "CALL", "NOP")
        ):
            break
    return frozenset(found)
