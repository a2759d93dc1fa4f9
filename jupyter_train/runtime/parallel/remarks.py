"""Sentences for the user, each said once and by one rank."""

from __future__ import annotations

from collections.abc import Callable


class Remarks:
    """Says what all ranks know through rank 0 alone."""

    def __init__(self, say: Callable[[str], None], *, rank: int) -> None:
        self._say = say
        self._rank = rank
        self.said: set[str] = set()

    def say(self, text: str) -> None:
        """Tell the user ``text`` unless it was said before."""
        if text not in self.said:
            self.said.add(text)
            if self._rank == 0:
                self._say(text)
