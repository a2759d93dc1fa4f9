"""What ranks that do not lead display: text in the log, whoever has taken the streams over."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_train.runtime.display import Recorded


class Live(io.StringIO):
    """As rich does while it shows something live: what is written is displayed."""

    audience: Any = None

    def write(self, text: str) -> int:
        self.audience.display({"text/plain": text}, {})
        return len(text)


def test_a_display_that_takes_stdout_over_is_not_displayed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    log, live = io.StringIO(), Live()
    live.audience = Recorded(SimpleNamespace(), leads=False)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "__stdout__", log)
    monkeypatch.setattr(sys, "stdout", live)
    print("10 %", end="")
    assert log.getvalue() == "10 %\n"
