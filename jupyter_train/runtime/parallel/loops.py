"""Does the loop over a loader train? Read from the bytecode of the loop's body and of the functions that it calls.

A loop that trains only where a condition holds (``if phase == "train"``) may be
one for validation as well: the condition decides where its value is known, else
what the loop does with its first batch.
"""

from __future__ import annotations

import builtins
import dis
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, IntEnum
from functools import lru_cache
from types import CodeType, FrameType, FunctionType, MappingProxyType, MethodType
from typing import Any

from jupyter_train.runtime.parallel.ways import walk

DEEPEST = 4
_BACKWARD = frozenset({"backward", "manual_backward"})
_GRAD = frozenset({"grad", "grad_and_value", "jacrev", "vjp"})
_LIBRARY = ("torch", "autograd", "func", "functorch")  #: whose ``grad`` is meant
_ENDS = ("STORE", "POP_TOP", "RETURN", "JUMP", "DELETE", "RAISE", "YIELD")


class Loop(Enum):
    """What a pass over a loader is for."""

    TRAINS = "trains"
    READS = "reads"  #: no backward in its body
    SOLVES = "solves"  #: gradients by autograd.grad or torch.func alone
    UNKNOWN = (
        "unknown"  #: not a for loop that can be read, or one with a way through its body without a backward
    )


class _Way(IntEnum):
    """Whether running some code runs what is looked for."""

    NEVER = 0
    MAYBE = 1
    SURELY = 2


def kind_of(frames: Sequence[FrameType], *, by_values: bool = False) -> Loop:
    """The loop that ``frames[0]`` is about to begin, by ``for … in loader`` or around enumerate, zip, tqdm.

    Args:
        frames: as of :func:`consumers`.
        by_values: conditions on what names hold now may decide; else the answer
            is the same for each pass of that loop.
    """
    kinds = []
    for frame in frames:
        body = _body(frame.f_code, frame.f_lasti)
        if body is None:
            kinds.append(Loop.UNKNOWN)
            continue
        namespace = {**vars(builtins), **frame.f_globals, **frame.f_locals}
        way = _reaches(body, namespace, _BACKWARD, DEEPEST, {}, values=namespace if by_values else {})
        if way is _Way.SURELY:
            return Loop.TRAINS
        if way is _Way.MAYBE:
            kinds.append(Loop.UNKNOWN)
            continue
        kinds.append(Loop.SOLVES if _reaches(body, namespace, _GRAD, DEEPEST, {}) else Loop.READS)
    return next((kind for kind in (Loop.SOLVES, Loop.UNKNOWN) if kind in kinds), Loop.READS)


def consumers(frame: FrameType, outer: Callable[[FrameType], FrameType | None]) -> list[FrameType]:
    """``frame`` and, where it is a generator that hands on what it reads, the frame that reads from it; and so on."""
    frames = [frame]
    while len(frames) < DEEPEST and frame.f_code.co_flags & inspect.CO_GENERATOR:
        body = _body(frame.f_code, frame.f_lasti)
        above = outer(frame)
        if above is None or not body or not any(step.opname == "YIELD_VALUE" for step in body):
            break
        frame = above
        frames.append(frame)
    return frames


def begins_a_loop(frame: FrameType) -> bool:
    """The instruction at which ``frame`` stands leads into a for loop of its own, or a comprehension."""
    return _body(frame.f_code, frame.f_lasti) is not None


def body_of(frame: FrameType) -> tuple[dis.Instruction, ...] | None:
    """Instructions of the body of the for loop at whose head ``frame`` stands; None where it stands at none."""
    return _body(frame.f_code, frame.f_lasti) or None


@lru_cache(maxsize=512)
def _instructions(code: CodeType) -> tuple[dis.Instruction, ...]:
    return tuple(dis.get_instructions(code))


def _body(code: CodeType, at: int) -> tuple[dis.Instruction, ...] | None:
    """Instructions of the body of the for loop that the instruction at offset ``at`` leads into; () for a comprehension."""
    steps = _instructions(code)
    # The instruction under way: of a call, Python 3.11 gives the offset of its last cache entry.
    position = max((k for k, step in enumerate(steps) if step.offset <= at), default=0)
    for number in range(position, len(steps)):
        step = steps[number]
        if step.opname.startswith("FOR_ITER"):
            return tuple(s for s in steps if step.offset < s.offset < step.argval)
        if step.opname == "GET_ITER":
            after = next(
                (s for s in steps[number + 1 :] if s.opname not in ("EXTENDED_ARG", "CACHE", "NOP")), None
            )
            if after is not None and after.opname in ("PRECALL", "CALL"):
                return ()  # a comprehension or generator expression, a function of its own
        elif number > position and step.opname.startswith(_ENDS):
            return None
    return None


def _reaches(
    steps: tuple[dis.Instruction, ...],
    namespace: Mapping[str, Any],
    wanted: frozenset[str],
    depth: int,
    known: dict[CodeType, _Way],
    *,
    values: Mapping[str, Any] = MappingProxyType({}),
) -> _Way:
    """Do ``steps``, run from the first one on, come to one of the ``wanted`` calls?

    A path through functions is followed ``depth`` calls deep.

    Args:
        known: what is known of functions; those being looked at count as never.
        values: of names that conditions may be decided by.
    """
    owner: Any = None
    before = ""
    found: dict[int, _Way] = {}  #: by offset

    def note(step: dis.Instruction, way: _Way) -> None:
        found[step.offset] = max(found.get(step.offset, _Way.NEVER), way)

    def inside(code: CodeType, names: Mapping[str, Any], deeper: int) -> _Way:
        if code not in known:
            known[code] = _Way.NEVER
            known[code] = _reaches(_instructions(code), names, wanted, deeper, known)
        return known[code]

    for step in steps:
        if isinstance(step.argval, CodeType):  # a closure that is made here, for LBFGS for instance
            note(step, inside(step.argval, namespace, depth))
        name = step.argval if isinstance(step.argval, str) else ""
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            if name in wanted and (wanted is not _GRAD or before in _LIBRARY):
                note(step, _Way.SURELY)
            owner = _attribute(owner, name)
        elif step.opname.startswith(
            ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")
        ):
            owner = namespace.get(name)
            if wanted is _GRAD and name in wanted and getattr(owner, "__module__", "").startswith("torch"):
                note(step, _Way.SURELY)
        else:
            continue
        before = name
        for function in _functions(owner):
            if depth:
                note(step, inside(function.__code__, _names_of(function), depth - 1))
    if not any(found.values()):
        return _Way.NEVER
    ways = walk(steps, {offset for offset, way in found.items() if way is _Way.SURELY}, values)
    if not any(found.get(offset) for offset in ways.met):
        return _Way.NEVER
    return _Way.MAYBE if ways.can_be_avoided else _Way.SURELY


def _attribute(owner: Any, name: str) -> Any:
    if owner is None:
        return None
    try:
        value = inspect.getattr_static(owner, name)
    except AttributeError:
        return None
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def _functions(value: Any) -> Iterator[FunctionType]:
    """The user's functions that calling ``value`` runs; libraries are not read."""
    if isinstance(value, MethodType):
        value = value.__func__
    value = getattr(value, "__wrapped__", value) if isinstance(value, FunctionType) else value
    if isinstance(value, FunctionType) and not _is_library(value):
        yield value


def _is_library(function: FunctionType) -> bool:
    module = (function.__module__ or "").partition(".")[0]
    return module in ("torch", "numpy", "torchvision", "tqdm", "jupyter_train", "builtins")


def _names_of(function: FunctionType) -> dict[str, Any]:
    names = {**vars(builtins), **function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            continue  # not bound yet
    return names
