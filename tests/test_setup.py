"""``make`` sets up an environment that works with every Python that the package accepts, and only once."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tools import setup_venv

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = "3.11.0"
PINS = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
]


def test_every_pin_is_a_plain_version() -> None:
    for pin in PINS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.]+", pin), pin


def test_every_pin_installs_on_the_oldest_python() -> None:
    too_new = []
    for pin in PINS:
        name, _, version = pin.partition("==")
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        wanted = found.metadata.get("Requires-Python")
        if (
            found.version.partition("+")[0] == version
            and wanted
            and OLDEST_PYTHON not in SpecifierSet(wanted)
        ):
            too_new.append(f"{pin} needs Python {wanted}")
    assert too_new == []


def test_a_stamp_holds_until_a_source_changes(tmp_path: Path) -> None:
    source = tmp_path / "pyproject.toml"
    source.write_text("one")
    before = setup_venv.fingerprint((source,), tmp_path)
    assert setup_venv.fingerprint((source,), tmp_path) == before
    assert setup_venv.fingerprint((source,), tmp_path / "moved") != before
    source.write_text("two")
    assert setup_venv.fingerprint((source,), tmp_path) != before


def test_an_environment_without_its_python_is_not_ready(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    assert not setup_venv.is_ready(stamp, "x")
    stamp.write_text("x")
    assert not setup_venv.is_ready(stamp, "x")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert setup_venv.is_ready(stamp, "x")
    assert not setup_venv.is_ready(stamp, "y")


@pytest.mark.parametrize("said", ["Python 3.9.2", None])
def test_a_python_that_is_too_old_is_named_in_one_sentence(tmp_path: Path, said: str | None) -> None:
    python = tmp_path / "python3"
    if said:
        python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{said}" && exit 0\nexit 1\n')
        python.chmod(0o755)
    done = subprocess.run(
        ["sh", str(ROOT / "tools" / "setup.sh"), str(python)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr
    assert (said or "no Python that starts") in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
