"""Which environments share a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from jupyter_train.cluster import fingerprint as fp

PARTS = {"host": "a", "prefix": "/env", "versions": ("torch=2.13",), "python": "3.11", "source": ""}


def test_every_part_of_an_environment_makes_another_one() -> None:
    changed = [
        {"host": "b"},
        {"prefix": "/other"},
        {"versions": ("torch=2.14",)},
        {"python": "3.12"},
        {"source": "/src@1"},
    ]
    digests = {fp.digest(**PARTS), *(fp.digest(**{**PARTS, **change}) for change in changed)}
    assert len(digests) == len(changed) + 1


def test_an_edit_of_a_checkout_makes_another_environment(tmp_path: Path) -> None:
    package = tmp_path / "jupyter_train"
    (package / "control").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    source = package / "control" / "machine.py"
    source.touch()
    before = fp.source_stamp(package)
    (package / "__pycache__" / "machine.py").touch()
    assert fp.source_stamp(package) == before
    os.utime(source, ns=(0, source.stat().st_mtime_ns + 10**9))
    assert fp.source_stamp(package) != before


def test_an_installed_package_has_no_stamp() -> None:
    assert fp.source_stamp(Path(sysconfig.get_path("purelib")) / "jupyter_train") == ""


def test_versions_are_those_of_the_metadata() -> None:
    from importlib import metadata

    assert fp.version("numpy") == metadata.version("numpy")
    assert fp.version("no-such-package-at-all") == ""


def test_it_is_the_same_in_every_process_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from jupyter_train.cluster.fingerprint import fingerprint; print(fingerprint()); "
        "print(sorted({'torch', 'dask', 'tornado', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == [fp.fingerprint(), "[]"]
