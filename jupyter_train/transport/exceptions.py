"""Exceptions as values: the same error on the other side, whatever its class's constructor does."""

from __future__ import annotations

from types import FunctionType
from typing import Any


def has_own_constructor(kind: type) -> bool:
    """Whether ``kind`` is an exception whose ``__init__`` would not make it anew from its ``args``.

    Python pickles an exception as a call of its class with ``args``: what the
    class's own ``__init__`` did with its arguments it would do again with the result.
    """
    return (
        issubclass(kind, BaseException)
        and isinstance(kind.__init__, FunctionType)
        and kind.__reduce__ is BaseException.__reduce__
        and kind.__reduce_ex__ is BaseException.__reduce_ex__
        and not hasattr(kind, "__getnewargs__")
    )


def reduce_exception(error: BaseException) -> Any:
    """For the pickler: class, ``args`` and attributes, without a call of the class's own constructor."""
    return rebuild_exception, (type(error), error.args), error.__dict__ or None


def rebuild_exception(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """The exception, filled by the constructor of its nearest base that is written in C."""
    error = kind.__new__(kind, *args)
    for base in kind.__mro__:
        constructor = base.__dict__.get("__init__")
        if constructor is not None and not isinstance(constructor, FunctionType):
            constructor(error, *args)
            break
    return error
