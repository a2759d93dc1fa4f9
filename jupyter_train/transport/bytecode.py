"""Global names in compiled code. Bytecode knows scopes exactly, so nothing is worked out here."""

from __future__ import annotations

import dis
import inspect
import re
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import NamedTuple

_EXTENDED_ARG = dis.opmap["EXTENDED_ARG"]


def _operations(*names: str) -> frozenset[int]:
    return frozenset(dis.opmap[name] for name in names if name in dis.opmap)


_LOADS = _operations("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS", "DELETE_NAME", "DELETE_GLOBAL")
_GLOBAL_WRITES = _operations("STORE_GLOBAL", "DELETE_GLOBAL")
#: At module level only: the same operations in a class body write the class.
_NAME_WRITES = _operations("STORE_NAME", "DELETE_NAME")
#: Its operand carries a flag in the lowest bit.
_LOAD_GLOBAL = dis.opmap["LOAD_GLOBAL"]
#: Ways to reach a name that no analysis sees. In a function, ``locals()`` has no global names.
_DYNAMIC = frozenset({"exec", "eval", "globals"})
_DYNAMIC_CELL = _DYNAMIC | {"locals"}
IDENTIFIER = re.compile(r"[^\W\d]\w*")
#: ``frame.query("age > @limit")`` of pandas reads variables of its caller.
_QUERIES = frozenset({"query", "eval"})
_QUERIED = re.compile(r"@([^\W\d]\w*)")

_IMPORT_NAME = dis.opmap["IMPORT_NAME"]
_IMPORT_FROM = dis.opmap["IMPORT_FROM"]
_NAMED = _LOADS | _GLOBAL_WRITES | _NAME_WRITES


class CodeNames(NamedTuple):
    """What a piece of code and everything nested in it does with global names."""

    reads: frozenset[str]  #: loaded or deleted
    writes: frozenset[str]  #: assigned or deleted
    in_functions: frozenset[str]  #: those that functions read, which run when somebody calls them
    words: frozenset[str]  #: every name in it, attributes too
    imports: frozenset[str]  #: modules it imports, and ``module.name`` of ``from module import name``
    mentions: frozenset[str]  #: in strings that it may run as code: any word of them
    dynamic: bool  #: uses ``exec``, ``globals()`` and the like


@lru_cache(maxsize=2048)
def code_names(code: CodeType, *, is_module: bool = False) -> CodeNames:
    """The global names of ``code``, functions and classes inside it included.

    Args:
        code: compiled code.
        is_module: ``code`` is a whole cell, so that plain assignments are global.
    """
    reads: set[str] = set()
    writes: set[str] = set()
    in_functions: set[str] = set()
    words: set[str] = set(code.co_names)
    imports: set[str] = set()
    module = ""
    for operation, operand in _instructions(code):
        if operation == _IMPORT_NAME:
            module = code.co_names[operand]
            imports.add(module)
        elif operation == _IMPORT_FROM:
            imports.add(f"{module}.{code.co_names[operand]}")
        if operation not in _NAMED:
            continue
        name = code.co_names[operand >> 1 if operation == _LOAD_GLOBAL else operand]
        if operation in _LOADS:
            reads.add(name)
        if operation in _GLOBAL_WRITES or (is_module and operation in _NAME_WRITES):
            writes.add(name)
    mentions: set[str] = set()
    dynamic = not (_DYNAMIC_CELL if is_module else _DYNAMIC).isdisjoint(reads)
    for constant in code.co_consts:
        if isinstance(constant, str):
            if dynamic:
                mentions.update(IDENTIFIER.findall(constant))
            elif not _QUERIES.isdisjoint(words):
                mentions.update(_QUERIED.findall(constant))
        elif isinstance(constant, CodeType):
            inner = code_names(constant)
            mentions |= inner.mentions
            dynamic |= inner.dynamic
            reads |= inner.reads
            writes |= inner.writes
            in_functions |= inner.in_functions
            words |= inner.words
            imports |= inner.imports
    if code.co_flags & inspect.CO_OPTIMIZED:  # a function, not a module or the body of a class
        in_functions = reads
    return CodeNames(
        reads=frozenset(reads),
        writes=frozenset(writes),
        in_functions=frozenset(in_functions),
        words=frozenset(words),
        imports=frozenset(imports),
        mentions=frozenset(mentions),
        dynamic=dynamic,
    )


def _instructions(code: CodeType) -> Iterator[tuple[int, int]]:
    """``(operation, operand)`` of every instruction; ten times faster than ``dis.get_instructions``."""
    raw = code.co_code
    extended = 0
    for at in range(0, len(raw), 2):
        operation = raw[at]
        operand = raw[at + 1] | extended
        if operation == _EXTENDED_ARG:
            extended = operand << 8
        else:
            extended = 0
            yield operation, operand


def global_loads(code: CodeType) -> set[tuple[str, int]]:
    """``(name, line)`` of every place that loads a global name, at any depth.

    What the body of a class loads is left out where the body binds it too.
    """
    is_class = not code.co_flags & inspect.CO_OPTIMIZED and code.co_name != "<module>"
    loads: set[tuple[str, int]] = set()
    own: set[str] = set()
    for (operation, operand), line in _with_lines(code):
        if operation not in _NAMED:
            continue
        name = code.co_names[operand >> 1 if operation == _LOAD_GLOBAL else operand]
        if operation in _LOADS:
            loads.add((name, line))
        elif is_class:
            own.add(name)
    loads = {(name, line) for name, line in loads if name not in own}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            loads |= global_loads(constant)
    return loads


def _with_lines(code: CodeType) -> Iterator[tuple[tuple[int, int], int]]:
    """Every instruction with its line."""
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno if instruction.positions is not None else None
        yield (instruction.opcode, instruction.arg or 0), line or 0
