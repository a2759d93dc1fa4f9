"""What ranks of this worker need is marked as used, so that nobody evicts it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dask
import pytest

from jupyter_train.runtime import tidying
from jupyter_train.runtime.tidying import ABANDONED_S, sweep, tidy
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


def test_what_killed_processes_left_goes_once_nobody_can_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_TRAIN_HOME", str(tmp_path))
    monkeypatch.setattr(tidying, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = tmp_path / "runs" / "20261122-153000-ab12cd"
    run.mkdir(parents=True)
    long_ago = time.time() - ABANDONED_S - 60
    spool, memory = run / "spool-1-0.events", tmp_path / "jupyter-train-x1"
    kept = [
        run / "result-1.bin",
        run / "spool-2-0.events",
        tmp_path / "jupyter-train-x2",
        tmp_path / "others",
    ]
    for path in (spool, memory, *kept):
        path.write_bytes(b"")
        os.utime(path, (long_ago, long_ago))
    scratch, recording = tmp_path / "jupyter-train-shadow-x-1", run / "proof-1.bin"
    (scratch / "files").mkdir(parents=True)
    recording.touch()
    for path in (scratch, recording):
        os.utime(path, (long_ago, long_ago))
    for path in kept[1:3]:
        os.utime(path)

    assert sorted(sweep()) == sorted([spool, memory, scratch, recording])
    assert all(path.exists() for path in kept)
