"""One home and one local cluster for all end-to-end tests; a kernel of its own for each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import Notebook, new_notebook, processes_of_runs


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="jt-e2e-") as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        yield home
        with new_notebook(home, Path(folder)) as last:
            # More than one where sources were edited meanwhile: each version has a cluster of its own.
            stopped = last.run(
                "import jupyter_train as jt\nfor one in jt.cluster.clusters(): jt.cluster.stop(one.name)",
                timeout=60,
            )
            assert stopped.error is None, stopped.all_text
        assert processes_of_runs(home) == []
        left = [p for p in (home / "clusters").rglob("*") if p.is_file()]
        assert left == []


@pytest.fixture
def notebook(shared_home: Path, tmp_path: Path) -> Iterator[Notebook]:
    with new_notebook(shared_home, tmp_path) as opened:
        yield opened
