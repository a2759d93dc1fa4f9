"""What the proof of a run costs its first step: ``--check`` against ``--no-check``, by turns.

From ``execute_request`` sent to the first optimizer step done on both ranks, as
in ``start``. The ranks share one core and the shadow has the other, so that what
is measured is the ranks' own part: recording, and asking for a shadow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernel import Kernel, training_kernel
from benchmarks.report import OURS, Row, progress, row
from benchmarks.start import _LOOP, _OURS_SETUP, _SETUP, last_first_step

PAIRS = 20

_PIN = """
import os
cores = sorted(os.sched_getaffinity(0))
core = cores[-1] if "JUPYTER_TRAIN_SHADOW" in os.environ else cores[0]
for thread in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(thread), {core})
"""


def first_step(kernel: Kernel, folder: Path, option: str) -> float:
    """Seconds of one run with ``option``."""
    cell = f"%%train -n 2 --name check {option}\n{_PIN}" + _LOOP.format(folder=str(folder))
    message, pressed = kernel.press(cell)
    kernel.finish(message)
    return last_first_step(folder) - pressed


def measure(pairs: int | None = None) -> Iterator[Row]:
    """``pairs`` of runs; which of the two goes first changes from pair to pair."""
    pairs = pairs or PAIRS
    seconds: dict[str, list[float]] = {"--check": [], "--no-check": []}
    with training_kernel() as kernel:
        folder = kernel.home / "check"
        folder.mkdir()
        kernel.run(_SETUP + _OURS_SETUP)
        for option in seconds:  # the first ones start the cluster
            first_step(kernel, folder, option)
        for number in range(pairs):
            for option in sorted(seconds, reverse=bool(number % 2)):
                seconds[option].append(first_step(kernel, folder, option))
                if option == "--check":
                    found = kernel.run("import jupyter_train as jt; print(jt.run('last').proof.text)").strip()
            progress(
                ", ".join(f"{option} {values[-1]:.3f} s" for option, values in seconds.items()) + f"; {found}"
            )
    checked, unchecked = seconds["--check"], seconds["--no-check"]
    yield row("check", OURS, "with --check", "s", checked)
    yield row("check", OURS, "with --no-check", "s", unchecked)
    yield row("check", OURS, "difference", "s", [a - b for a, b in zip(checked, unchecked, strict=True)])
