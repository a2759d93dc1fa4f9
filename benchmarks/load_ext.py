"""What ``%load_ext jupyter_train`` adds to plain IPython: in the shell, and to a whole process. Measure ``import``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernel import ROOT, environment
from benchmarks.report import OURS, Row, progress, row

PAIRS = 20

_SHELL = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
begun = time.perf_counter()
{load}
print(time.perf_counter() - begun)
"""
_LOAD = "shell.run_line_magic('load_ext', 'jupyter_train')"


def one(load: str) -> tuple[float, float]:
    """Milliseconds for ``load`` alone, and for the whole process around it."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _SHELL.format(load=load)],
        env=environment(Path("/nonexistent")),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    whole = time.perf_counter() - begun
    return 1e3 * float(done.stdout.split()[-1]), 1e3 * whole


def measure(pairs: int | None = None) -> Iterator[Row]:
    """``pairs`` fresh processes of each, by turns."""
    one("pass"), one(_LOAD)  # so that the byte code of all modules is there
    mine, plain = [], []
    for i in range(pairs or PAIRS):
        mine.append(one(_LOAD))
        plain.append(one("pass"))
        progress(f"pair {i + 1}: {mine[-1][0]:.1f} ms in the shell")
    yield row("import", OURS, "load_ext", "ms", [m[0] for m in mine])
    yield row("import", OURS, "process", "ms", [m[1] for m in mine])
    yield row("import", "IPython", "process", "ms", [p[1] for p in plain])
    yield row("import", OURS, "added", "ms", [m[1] - p[1] for m, p in zip(mine, plain, strict=True)])
