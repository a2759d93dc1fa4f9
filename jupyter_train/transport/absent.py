"""What could not come back, gathered into one short sentence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jupyter_train.transport.culprit import Culprit, Trial, find_culprit

#: Spent on finding out why, in one result: ten thousand names that cannot travel must not hold up the end of a run.
_SECONDS = 2.0
_NAMED = 5
_REASON_CHARACTERS = 120
_PATH_CHARACTERS = 60


class Absent:
    """Names and parts of them that stay with the ranks, each with the reason."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left_s = _SECONDS
        self._entries: list[str] = []

    def culprit(self, value: Any, path: str, trial: Trial) -> Culprit | None:
        """What of ``value`` cannot travel; None where it can. After a while only the error itself is told."""
        began = self._clock()
        try:
            return find_culprit(value, path, trial, seconds=max(self._left_s / 2, 0.0))
        finally:
            self._left_s -= self._clock() - began

    def add(self, what: str, reason: str) -> None:
        """``what`` is not back; ``reason`` is what it is, or why."""
        reason = reason.partition(";")[0]  # "…; open it inside the cell" is advice for the way there
        if len(reason) > _REASON_CHARACTERS:
            reason = f"{reason[: _REASON_CHARACTERS - 1]}…"
        self._entries.append(f"{what} ({reason})")

    def add_name(self, name: str, culprit: Culprit) -> None:
        """The name ``name`` is not back because of ``culprit``."""
        if culprit.path == name:
            self.add(name, culprit.reason)
        elif culprit.path.startswith(name):
            part = culprit.path.removeprefix(name)
            if len(part) > _PATH_CHARACTERS:
                part = f"{part[: _PATH_CHARACTERS // 2]}…{part[-_PATH_CHARACTERS // 2 :]}"
            self.add(name, f"its {part}: {culprit.reason}")
        else:
            self.add(name, f"{culprit.path}: {culprit.reason}")

    def remarks(self) -> list[str]:
        """One sentence, or none."""
        if not self._entries:
            return []
        more = len(self._entries) - _NAMED
        rest = f" and {more} more" if more > 0 else ""
        return [f"did not come back: {', '.join(self._entries[:_NAMED])}{rest}"]
