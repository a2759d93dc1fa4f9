"""The folder of captured data does not grow for ever, and active runs keep theirs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest

from jupyter_train.errors import CaptureError
from jupyter_train.notebook import housekeeping
from jupyter_train.record import RunState
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.quota import capture_limit, content_quota


def test_old_data_beyond_the_limit_goes_but_for_what_is_recent_or_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_last", -1e9)
    content = ContentStore(tmp_path / "content")
    old, queued, new = content.put(b"a" * 1000), content.put(b"b" * 1000), content.put(b"c" * 1000)
    long_ago = time.time() - 7200
    for ref in (old, queued):
        os.utime(content.path(ref.key), (long_ago, long_ago))
    runs = [
        SimpleNamespace(state=RunState.PENDING, spec={"capture": [{"key": queued.key, "size_bytes": 1000}]}),
        SimpleNamespace(state=RunState.SUCCEEDED, spec={"capture": [{"key": old.key, "size_bytes": 1000}]}),
    ]
    monkeypatch.setattr("jupyter_train.store.Store.runs", lambda self: runs)
    with dask.config.set({"jupyter-train.content-bytes": 100}):
        thread = housekeeping.tidy(tmp_path / "content")
        assert thread is not None
        thread.join(10)
    assert not content.has(old.key)
    assert content.has(queued.key), "a queued run will load it"
    assert content.has(new.key), "a run may be about to load it"
    assert housekeeping.tidy(tmp_path / "content") is None, "every ten minutes is enough"


def test_a_run_that_was_lost_long_ago_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    runs = [
        SimpleNamespace(state=state, started=now - age_s, spec={"capture": [{"key": key, "size_bytes": 1}]})
        for state, age_s, key in (
            (RunState.LOST, 60, "lost a minute ago"),
            (RunState.LOST, 30 * 86400, "lost a month ago"),
            (RunState.RUNNING, 30 * 86400, "runs for a month"),
        )
    ]
    monkeypatch.setattr("jupyter_train.store.Store.runs", lambda self: runs)
    assert housekeeping.needed_keys() == {"lost a minute ago", "runs for a month"}


def test_limits_are_numbers_or_texts_and_anything_else_is_named(tmp_path: Path) -> None:
    with dask.config.set({"jupyter-train": {"capture-bytes": "3 GB", "content-age": "2 days"}}):
        assert capture_limit() == 3 * 10**9
        assert content_quota(tmp_path).max_age_s == 2 * 86400
    with (
        dask.config.set({"jupyter-train.capture-bytes": "a lot"}),
        pytest.raises(CaptureError, match=r"jupyter-train.capture-bytes of Dask's config is 'a lot'"),
    ):
        capture_limit()
