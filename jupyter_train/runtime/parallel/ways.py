"""The ways through a piece of bytecode: what they meet, and whether one misses certain instructions. Pure."""

from __future__ import annotations

import dis
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

_JUMPS = frozenset({*dis.hasjrel, *dis.hasjabs})
_NOTHING = ("EXTENDED_ARG", "CACHE", "NOP", "TO_BOOL", "COPY_FREE_VARS", "PRECALL")
_LOADS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")
_STORES = ("STORE_", "DELETE_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """All ways from the first instruction on."""

    met: frozenset[int]  #: offsets of what can be come to
    can_be_avoided: (
        bool  #: a way to a return, or back to before the first instruction, misses what was asked for
    )


def walk(steps: Sequence[dis.Instruction], sure: Container[int], values: Mapping[str, Any]) -> Ways:
    """Follow all ways through ``steps``, as far as the offsets in ``sure``.

    Inner for loops are taken to run once at least. Ways out by break or an
    exception do not count: the rest of that batch is left undone.

    Args:
        steps: a function, or the body of one of its loops.
        values: of names before the first of ``steps``. A condition on a name
            that is set nowhere in ``steps`` goes one way only.
    """
    known = _Known(steps, values)
    at = {step.offset: number for number, step in enumerate(steps)}
    waiting, seen, avoided = [0], set(), False
    while waiting:
        number = waiting.pop()
        if number in seen or number >= len(steps):
            continue
        seen.add(number)
        step = steps[number]
        name = step.opname
        if step.offset in sure or name.startswith(("RAISE", "RERAISE")):
            continue
        if name.startswith("RETURN_") and name != "RETURN_GENERATOR":
            avoided = avoided or steps[0].offset == 0  # else a way out of the loop
            continue
        if step.opcode not in _JUMPS or name.startswith("FOR_ITER"):
            waiting.append(number + 1)
            continue
        jumps = True if _is_unconditional(name) else known.jumps(number)
        if jumps is not True:
            waiting.append(number + 1)
        if jumps is False:
            continue
        if step.argval < steps[0].offset:
            avoided = True  # the next batch
            continue
        target = _behind_prefix(steps, at.get(step.argval))
        if target is not None and target < number and steps[target].opname.startswith("FOR_ITER"):
            target = at.get(steps[target].argval)
        if target is not None:
            waiting.append(target)
    return Ways(met=frozenset(steps[number].offset for number in seen), can_be_avoided=avoided)


def _is_unconditional(name: str) -> bool:
    return name.startswith("JUMP_") and not name.startswith("JUMP_IF")


def _behind_prefix(steps: Sequence[dis.Instruction], number: int | None) -> int | None:
    while number is not None and steps[number].opname in _NOTHING:
        number = number + 1 if number + 1 < len(steps) else None
    return number


class _Known:
    """Conditions whose value is known: on names, and on ``training`` of modules, that nothing here changes."""

    def __init__(self, steps: Sequence[dis.Instruction], values: Mapping[str, Any]) -> None:
        self._steps = steps
        self._values = values
        self._set = {
            name
            for step in steps
            if step.opname.startswith(_STORES)
            for name in (step.argval if isinstance(step.argval, tuple) else (step.argval,))
        }
        self._modes_change = any(
            step.argval in ("train", "eval") and step.opname in ("LOAD_ATTR", "LOAD_METHOD") for step in steps
        )

    def jumps(self, number: int) -> bool | None:
        """Does the conditional jump there jump? None: not known."""
        before = [step for step in self._steps[max(0, number - 12) : number] if step.opname not in _NOTHING]
        kind = self._steps[number].opname
        if not kind.startswith("POP_JUMP") or not before:
            return None
        last = before.pop()
        if last.opname.startswith(("COMPARE_OP", "IS_OP")):
            right = self._load(before)
            left = self._load(before)
            value = _compared(last, left, right)
        else:
            before.append(last)
            value = self._load(before)
        if value is None:
            return None
        (truth,) = value
        if kind.endswith("_NOT_NONE"):
            return truth is not None
        if kind.endswith("_NONE"):
            return truth is None
        if not isinstance(truth, (bool, int, str, type(None))):
            return None
        return bool(truth) is kind.endswith("_TRUE")

    def _load(self, before: list[dis.Instruction]) -> tuple[Any] | None:
        """The value that the last of ``before`` puts on the stack, which are taken off; None: not known."""
        if not before:
            return None
        step = before.pop()
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            return (step.argval,)
        if step.opname == "LOAD_ATTR":
            owner = self._load(before)
            if owner is None or step.argval in self._set:
                return None
            if isinstance(owner[0], nn.Module) and step.argval == "training":
                return None if self._modes_change else (owner[0].training,)
            held = getattr(owner[0], "__dict__", {})
            return (held[step.argval],) if step.argval in held else None
        if not step.opname.startswith(_LOADS) or not isinstance(step.argval, str):
            return None
        if step.argval in self._set or step.argval not in self._values:
            return None
        return (self._values[step.argval],)


def _compared(step: dis.Instruction, left: tuple[Any] | None, right: tuple[Any] | None) -> tuple[Any] | None:
    if left is None or right is None:
        return None
    if step.opname.startswith("IS_OP"):
        return ((left[0] is right[0]) is not bool(step.arg),)
    simple = (bool, int, float, str, type(None))
    if not isinstance(left[0], simple) or not isinstance(right[0], simple):
        return None
    text = str(step.argval)
    if "==" in text:
        return (left[0] == right[0],)
    return (left[0] != right[0],) if "!=" in text else None
