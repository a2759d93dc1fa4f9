"""The exception of the type that the cell raised, made anew from what the run tells of it."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Mapping
from typing import Any

from jupyter_train import errors

#: Ends of a rank that no exception of the cell explains.
BY_CAUSE = {"signal": "RankLost", "lost": "RankLost", "exit": "RankLost", "timeout": "RunTimeout"}

#: What the shell shows as an error of the cell: of a SystemExit it would say how to leave IPython.
_RAISED = (Exception, KeyboardInterrupt)

#: Of an exception that is shown as it is: front ends get its text whole, and one of 100 MB ends a browser's tab.
MAX_TEXT = 20_000


def original(
    kind: str, payload: Mapping[str, Any], shipped: BaseException | None, namespace: Mapping[str, Any]
) -> BaseException:
    """An exception of the type called ``kind`` that reads as the one in ``payload`` did.

    ``shipped`` is taken where it is that one; classes of the notebook are
    looked up in ``namespace``; nothing is imported. RunFailed where none of
    that gives a class that the shell can show: it asks for the text of each, and
    prints groups in a way of its own, without what is said of ranks.
    """
    message = str(payload.get("message", ""))
    if isinstance(shipped, _RAISED) and type(shipped).__qualname__ == kind and _can_be_shown(shipped):
        return shipped
    found = _class(kind, str(payload.get("module") or "builtins"), namespace)
    if found is not None and not issubclass(found, BaseExceptionGroup):
        made = _made(found, message)
        if made is not None:
            return made
    return errors.RunFailed(f"{kind}: {message}")


def _can_be_shown(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return False
    text = _text(error)
    return text is not None and len(text) <= MAX_TEXT


def _text(error: BaseException) -> str | None:
    try:
        return str(error)
    except BaseException:  # a user's __str__ may raise anything, SystemExit too
        return None


def _class(kind: str, module: str, namespace: Mapping[str, Any]) -> type[BaseException] | None:
    if module.startswith("jupyter_train") or kind in BY_CAUSE.values():
        where: Any = errors
    elif module == "__main__":
        where = None
    else:
        where = builtins if module == "builtins" else sys.modules.get(module)
    found = namespace.get(kind) if where is None else getattr(where, kind, None)
    return found if isinstance(found, type) and issubclass(found, _RAISED) else None


def _made(kind: type[BaseException], message: str) -> BaseException | None:
    """An instance that reads as the original did."""
    if issubclass(kind, KeyError):
        try:
            return kind(ast.literal_eval(message))
        except (ValueError, SyntaxError):
            return kind(message)
    try:
        error = kind(message)
        if _text(error) == message:
            return error
    except BaseException:  # a constructor of anybody's, with other arguments
        pass
    try:
        error = kind.__new__(kind)
        error.args = (message,)
        if _text(error) == message:
            return error
        # Its text is made of what it was constructed with, which is not known.
        told: type[BaseException] = type(
            kind.__name__, (kind,), {"__module__": kind.__module__, "__str__": lambda self: message}
        )
        return told.__new__(told)
    except BaseException:  # as above: RunFailed says it then
        return None
