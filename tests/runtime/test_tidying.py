"""What ranks of this worker need is marked as used, so that nobody evicts it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dask
import pytest

from jupyter_train.runtime.tidying import tidy
from jupyter_train.transport.content import ContentStore


def test_what_a_long_run_needs_outlives_an_eviction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_TRAIN_HOME", str(tmp_path))
    content = ContentStore(tmp_path / "content")
    used, unused = content.put(b"used").key, content.put(b"unused").key
    for key in (used, unused):
        os.utime(content.path(key), (time.time() - 9000, time.time() - 9000))

    with dask.config.set({"jupyter-train.content-bytes": 0}):
        assert tidy([used]) == len(b"unused")

    assert content.has(used)
    assert time.time() - content.path(used).stat().st_mtime < 60


def test_a_host_without_captured_data_has_nothing_to_look_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_TRAIN_HOME", str(tmp_path / "none"))
    assert tidy([]) == 0
