"""Attributes of torch replaced for the length of a cell, and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MISSING = object()


class Patches:
    """What was replaced, to be undone in reverse order. Undoing twice does nothing."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def replace(self, owner: Any, name: str, value: Any) -> Any:
        """Set ``owner.name`` to ``value``; returns what it was."""
        own = owner.__dict__.get(name, _MISSING)
        before = getattr(owner, name)
        setattr(owner, name, value)
        if own is _MISSING:
            self._undo.append(lambda: delattr(owner, name))
        else:
            self._undo.append(lambda: setattr(owner, name, own))
        return before

    def on_undo(self, undo: Callable[[], None]) -> None:
        """Call ``undo`` when the rest is undone."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Put everything back."""
        while self._undo:
            self._undo.pop()()
