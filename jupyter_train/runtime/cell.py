"""The cell: compiled under a name of its own with the notebook's line numbers, executed as ``__main__``."""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import inspect
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable
from types import CodeType
from typing import Any, NoReturn, TypeVar

from jupyter_train.runtime.protection import keep_python
from jupyter_train.transport.settings import FUTURES

T = TypeVar("T")


def cell_file(name: str) -> str:
    """File name under which the cell of the run ``name`` appears in tracebacks."""
    return f"<train {name}>"


def padded_source(source: str, first_line: int) -> str:
    """``source`` pushed down, so that its lines have the numbers they have in the notebook's cell."""
    return "\n" * (first_line - 1) + source


def compile_cell(source: str, *, file: str, first_line: int, future: int = 0) -> list[CodeType]:
    """The cell as code objects, to be executed in order; registers the source for tracebacks.

    A last line that is an expression is a code object by itself that shows its value.
    ``await`` at top level makes a code object whose evaluation gives a coroutine.
    ``future`` are the flags of ``from __future__`` lines in earlier cells.

    Raises:
        SyntaxError: with the notebook's line.
    """
    text = padded_source(source, first_line)
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | future
    tree = compile(text, file, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    last = tree.body[-1] if tree.body else None
    shown = isinstance(last, ast.Expr) and not _ends_in_semicolon(text, last)
    body = tree.body[:-1] if shown else tree.body
    codes = [compile(ast.Module(body, tree.type_ignores), file, "exec", flags, dont_inherit=True)]
    if shown:
        flags |= codes[0].co_flags & FUTURES
        codes.append(compile(ast.Interactive(tree.body[-1:]), file, "single", flags, dont_inherit=True))
    return codes


def _ends_in_semicolon(text: str, last: ast.Expr) -> bool:
    """Whether a semicolon follows the last statement, which then shows nothing; a comment may follow it."""
    lines = text.split("\n")[(last.end_lineno or 1) - 1 :]
    lines[0] = lines[0].encode()[last.end_col_offset :].decode()
    return "".join(line.partition("#")[0].strip() for line in lines).endswith(";")


def new_main() -> dict[str, Any]:
    """The namespace of a fresh ``__main__``, which takes the place of the present one."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return module.__dict__


def execute(codes: list[CodeType], namespace: dict[str, Any]) -> None:
    """Run the code objects in ``namespace``; raises what the cell raises. Forks end here."""
    ending_forks(lambda: _execute(codes, namespace))


def ending_forks(run: Callable[[], T]) -> T:
    """What ``run`` gives, in the rank.

    A fork that the cell made ends where the cell ends, as it would at the end
    of a script: what follows is for the rank alone.
    """
    rank = os.getpid()
    put_back = keep_python()
    try:
        try:
            value = run()
        finally:
            put_back()
    except BaseException as error:
        if os.getpid() != rank:
            _leave_fork(error)
        raise
    if os.getpid() != rank:
        _leave_fork(None)
    return value


def _leave_fork(error: BaseException | None) -> NoReturn:
    code = 0
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _execute(codes: list[CodeType], namespace: dict[str, Any]) -> None:
    if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
        asyncio.run(_execute_async(codes, namespace))
        return
    for code in codes:
        exec(code, namespace)


async def _execute_async(codes: list[CodeType], namespace: dict[str, Any]) -> None:
    for code in codes:
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            await result
