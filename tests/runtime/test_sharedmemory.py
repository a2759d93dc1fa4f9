"""Shared memory of ranks keeps its name no longer than the ranks live."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_train.runtime import sharedmemory
from jupyter_train.runtime.parallel.hostmemory import new_file
from jupyter_train.runtime.processes import ATTEMPT_MARK, RUN_MARK

RUN = "20260101-000000-aaaaaa"


def test_what_a_killed_rank_had_just_named_goes_with_its_attempt_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharedmemory, "SHARED_MEMORY", tmp_path)
    made = {}
    for attempt in ("1", "12", "2"):
        monkeypatch.setenv(RUN_MARK, RUN)
        monkeypatch.setenv(ATTEMPT_MARK, attempt)
        made[attempt] = Path(new_file(4096, [tmp_path]))
    sharedmemory.forget_names(RUN, 1)
    assert {attempt for attempt, path in made.items() if path.exists()} == {"12", "2"}
    sharedmemory.forget_names("20260101-000000-bbbbbb", 2)
    assert made["2"].exists()
