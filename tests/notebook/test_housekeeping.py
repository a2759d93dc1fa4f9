"""The folder of captured data does not grow for ever."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import dask
import pytest

from jupyter_train.notebook import housekeeping
from jupyter_train.transport.content import ContentStore


def test_old_data_beyond_the_limit_goes_and_recent_data_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_asked", threading.Event())
    content = ContentStore(tmp_path / "content")
    old, new = content.put(b"a" * 1000), content.put(b"b" * 1000)
    long_ago = time.time() - 7200
    os.utime(content.path(old.key), (long_ago, long_ago))
    with dask.config.set({"jupyter-train.content-bytes": 100}):
        thread = housekeeping.prune_once(tmp_path / "content")
        assert thread is not None
        thread.join(10)
    assert not content.has(old.key)
    assert content.has(new.key), "a queued run may still need it"
    assert housekeeping.prune_once(tmp_path / "content") is None, "once per kernel is enough"
