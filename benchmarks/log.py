"""What one call costs that logs one value: ``train.log(loss=x)`` in a run, and tensorboard's SummaryWriter.

Back to back, which is the hardest case; and ``paced``, with two milliseconds of
work between the calls, as in training. Afterwards every single value must be in
the journal.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernel import Kernel, environment, training_kernel
from benchmarks.report import OURS, Row, progress, row

ROUNDS = 5
CALLS = 4000
PACED_CALLS = 500

_WORK = """
import json, math, time
from pathlib import Path

def work(seconds):
    end, x = time.perf_counter() + seconds, 0.0
    while time.perf_counter() < end:
        x += math.sin(x)

def measure(log, calls, pause):
    clock, costs = time.perf_counter_ns, []
    for i in range(calls):
        x = 1.0 / (i + 1)
        begun = clock()
        log(x)
        costs.append(clock() - begun)
        if pause:
            work(pause)
    return costs
"""

_OURS = """
costs = {{
    "call": measure(lambda x: train.log(loss=x), {calls}, 0),
    "call_paced": measure(lambda x: train.log(paced=x), {paced}, 0.002),
}}
if train.rank == 0:
    Path({file!r}).write_text(json.dumps(costs))
"""

_TENSORBOARD = """
from torch.utils.tensorboard import SummaryWriter

writer = SummaryWriter({folder!r})
costs = {{
    "call": measure(lambda x: writer.add_scalar("loss", x), {calls}, 0),
    "call_paced": measure(lambda x: writer.add_scalar("paced", x), {paced}, 0.002),
}}
writer.close()
Path({file!r}).write_text(json.dumps(costs))
"""


def read_costs(file: Path) -> dict[str, list[float]]:
    """Microseconds of each call; the file is removed."""
    told = json.loads(file.read_text())
    file.unlink()
    return {metric: [ns / 1e3 for ns in costs] for metric, costs in told.items()}


def ours(kernel: Kernel, calls: int, paced: int) -> dict[str, list[float]]:
    """One run on two ranks, both logging."""
    file = kernel.home / "costs.json"
    kernel.run("%%train -n 2 --name log\n" + _OURS.format(file=str(file), calls=calls, paced=paced))
    return read_costs(file)


def theirs(folder: Path, calls: int, paced: int) -> dict[str, list[float]]:
    """One process with tensorboard's writer."""
    file, script = folder / "costs.json", folder / "script.py"
    values = {"folder": str(folder / "events"), "file": str(file), "calls": calls, "paced": paced}
    script.write_text(_WORK + _TENSORBOARD.format(**values))
    subprocess.run([sys.executable, script], env=environment(folder), check=True, capture_output=True)
    return read_costs(file)


def values_lost(home: Path, calls: int, paced: int, *, ranks: int = 2) -> list[str]:
    """What the journal of the newest run lacks of what was logged; empty when it has every value in order."""
    from jupyter_train.store.store import Store

    store = Store(home)
    curves = store.view(store.runs(limit=1)[0].run_id).curves
    lost = []
    for name, count in (("loss", calls), ("paced", paced)):
        wanted = [1.0 / (i + 1) for i in range(count)]
        for rank in range(ranks):
            curve = curves.get(name, {}).get(rank)
            kept = [] if curve is None else curve.values.tolist()
            if kept != wanted:
                lost.append(f"{name} of rank {rank}: {len(kept)} of {count} values")
    return lost


def measure(rounds: int | None = None, *, calls: int = CALLS, paced: int = PACED_CALLS) -> Iterator[Row]:
    """``rounds`` of each, by turns.

    Raises:
        SystemExit: a value that was logged is not in the journal.
    """
    mine: dict[str, list[float]] = {"call": [], "call_paced": []}
    peers: dict[str, list[float]] = {"call": [], "call_paced": []}
    whole: list[float] = []
    with training_kernel() as kernel:
        folder = kernel.home / "tensorboard"
        folder.mkdir()
        kernel.run(_WORK)
        for i in range(rounds or ROUNDS):
            for costs, more in ((mine, ours(kernel, calls, paced)), (peers, theirs(folder, calls, paced))):
                for metric, taken in more.items():
                    costs[metric] += taken
            lost = values_lost(kernel.home, calls, paced)
            if lost:
                sys.exit("not everything that was logged is in the journal: " + "; ".join(lost))
            whole.append(1.0)
            progress(f"round {i + 1}: every value is in the journal")
    for metric, values in mine.items():
        yield row("log", OURS, metric, "us", values)
        yield row("log", "tensorboard", metric, "us", peers[metric])
    yield row("log", OURS, "journalled", "fraction", whole)
