"""Sets up ``.venv`` with the pinned versions, or sees that it is set up already. Standard library only.

Run by ``make`` before every target, so the common case has to be quick: a stamp
in the environment says what it was built from, and while that has not changed
nothing is started at all.
"""

# ruff: noqa: T201 (a command: what it prints is its interface)
from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "jupyter-train-stamp"
CONSTRAINTS = ROOT / "constraints.txt"
SOURCES = (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__).resolve())
OLDEST_PYTHON = (3, 11)
NO_VENV = """\
Cannot make a virtual environment: {python} comes without `ensurepip` and has no pip of its own.
On Debian and Ubuntu:  apt-get install python3-venv  . Or name another Python:  make PYTHON=/path/to/python3.12 ...
"""


def fingerprint(sources: tuple[Path, ...] = SOURCES, root: Path = ROOT) -> str:
    """What the environment is built from. The folder is part of it: an editable install points there."""
    digest = hashlib.sha256(str(root).encode())
    for source in sources:
        digest.update(b"\0" + source.read_bytes())
    return digest.hexdigest()


def venv_python(venv: Path = VENV) -> Path:
    """The interpreter of the environment, whether it is there or not."""
    return venv / "bin" / "python"


def is_ready(stamp: Path = STAMP, wanted: str | None = None) -> bool:
    """Whether the environment was completed from just these files."""
    try:
        return stamp.read_text() == (wanted or fingerprint()) and venv_python(stamp.parent).exists()
    except OSError:
        return False


@contextlib.contextmanager
def alone(root: Path = ROOT) -> Iterator[None]:
    """Two ``make`` at once must not fill one environment at the same time. Locks the folder, so leaves no file."""
    import fcntl

    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def works(python: Path) -> bool:
    """Whether this interpreter starts, is new enough and has pip."""
    check = f"import sys, pip; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    try:
        return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def create(venv: Path = VENV) -> None:
    """Makes the environment, with pip in it.

    Debian's python3 lacks ``ensurepip`` without its package python3-venv; its
    pip, where that is there, can still fill an environment.

    Raises:
        SystemExit: neither way works here.
    """
    make: list[str | Path] = [sys.executable, "-m", "venv", "--clear"]
    if subprocess.run([*make, venv], capture_output=True, check=False).returncode == 0:
        return
    fill: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv_python(venv),
        "install",
        "--quiet",
        "pip",
    ]
    for command in ([*make, "--without-pip", venv], fill):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"{result.stderr.strip()}\n\n{NO_VENV.format(python=sys.executable)}")


def install(python: Path) -> None:
    """Installs torch, then everything else.

    torch goes alone and first: as a dependency of something else pip may take
    another build of it.
    """
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--quiet",
        "-c",
        CONSTRAINTS,
    ]
    torch = next(line for line in CONSTRAINTS.read_text().split() if line.startswith("torch=="))
    subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, "-e", ".[test,check]"], check=True, cwd=ROOT)


def main() -> int:
    """Brings ``.venv`` up to date; returns the exit status."""
    wanted = fingerprint()
    if is_ready(wanted=wanted):
        return 0
    started = time.monotonic()
    print("Setting up .venv (once; torch is the largest part) ...", flush=True)
    # pip must not install elsewhere, whatever the caller's own settings say.
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PYTHONHOME"):
        os.environ.pop(name, None)
    python = venv_python()
    try:
        with alone():
            if is_ready(wanted=wanted):  # another make was faster
                return 0
            if not works(python):
                create()
            install(python)
            STAMP.write_text(wanted)
    except subprocess.CalledProcessError as error:
        print(
            f"Setting up .venv failed: pip ended with status {error.returncode} (see above).", file=sys.stderr
        )
        return 1
    print(f".venv is ready ({time.monotonic() - started:.0f} s).", flush=True)
    return 0


if __name__ == "__main__":
    if sys.version_info < OLDEST_PYTHON:
        sys.exit("jupyter_train needs Python 3.11 or newer; this is " + sys.version.split()[0])
    sys.exit(main())
