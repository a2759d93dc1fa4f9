"""What ``import jupyter_train`` gives, and what it does not cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jupyter_train as jt
from tests.notebook.conftest import Shell
from tests.notebook.fakes import FakeConnection


def imported_by(code: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(told.stdout.split())


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = {"torch", "dask", "distributed", "tornado", "numpy", "matplotlib", "IPython"}
    assert not heavy & imported_by("import jupyter_train")


def test_loading_the_extension_imports_nothing_heavy() -> None:
    code = "import IPython, jupyter_train.notebook.magics"
    heavy = {"torch", "dask", "distributed", "numpy", "matplotlib", "jupyter_train.record"}
    assert not heavy & imported_by(code)


def test_names_are_found_when_they_are_asked_for() -> None:
    assert jt.train.world_size == 1
    assert {"train", "run", "runs", "cluster"} <= set(dir(jt))
    with pytest.raises(AttributeError, match="nothing"):
        _ = jt.nothing


def test_cluster_is_a_package_that_can_be_called(connection: FakeConnection) -> None:
    assert jt.cluster("lab", ranks=2) is connection
    assert connection.opened == [("lab", 2)]  # type: ignore[attr-defined]


def test_the_extension_can_be_loaded_twice_and_unloaded(shell: Shell) -> None:
    shell.run("%reload_ext jupyter_train")
    shell.run("%train cluster list")
    assert shell.error is None
    shell.run("%unload_ext jupyter_train")
    shell.run("%train")
    assert "not found" in str(shell.error) + shell.capsys.readouterr().err
