"""Imports point one way, and importing the package costs next to nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jupyter_train

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jupyter_train"


def imported_by(file: Path) -> Iterator[str]:
    """Top-level names of the packages that a module imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_no_import_points_back() -> None:
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("layer", ["runtime", "control"])
def test_runtime_and_control_know_each_other_by_message_only(layer: str) -> None:
    other = {"runtime": "control", "control": "runtime"}[layer]
    for file in (PACKAGE / layer).rglob("*.py"):
        assert f"jupyter_train.{other}" not in file.read_text("utf-8"), file


def test_the_shape_of_data_needs_only_the_standard_library_and_numpy() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "jupyter_train"}
    for file in (PACKAGE / "record").rglob("*.py"):
        assert set(imported_by(file)) <= allowed, file


def test_all_imports_are_absolute() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}:{node.lineno}"


def modules_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after ``code``."""
    tell = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tell}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {"torch", "dask", "distributed", "tornado", "matplotlib", "pandas", "numpy"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not modules_after("import jupyter_train") & HEAVY


def test_loading_the_extension_imports_nothing_heavy() -> None:
    shell = "from IPython.core.interactiveshell import InteractiveShell as S; ip = S.instance()"
    plain = modules_after(shell)
    loaded = modules_after(f"{shell}\nip.run_line_magic('load_ext', 'jupyter_train')")
    assert not (loaded - plain) & HEAVY


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("jupyter_train")
    except PackageNotFoundError:
        pytest.skip("runs from a source tree that is not installed")
    assert jupyter_train.__version__ == installed
