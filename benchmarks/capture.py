"""What a cell over a large array costs: bytes that leave the kernel, time to start, memory of the ranks.

Peer: the same array scattered to Dask workers and read there, as one does
without us; each worker process then holds a copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.kernel import Kernel, training_kernel
from benchmarks.report import OURS, Row, progress, row

ROUNDS = 10
MEGABYTES = 200
RANKS = 4

_SETUP = f"""
import time
import numpy as np
import jupyter_train as jt

x = np.random.default_rng(0).random({MEGABYTES * 125_000})
rest = np.zeros(1)

def pss_bytes():
    with open("/proc/self/smaps_rollup") as lines:
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
"""

_START = """%%train -n 2
import time
began = time.time()
used = {reads}.size
"""

_MEMORY = f"""%%train -n {RANKS}
before = train.sum(pss_bytes())
total = float(x.sum())
train.sum(1)
growth = train.sum(pss_bytes()) - before
train.sum(1)
"""

_PEER = f"""
from distributed import Client, LocalCluster
import dask
dask.config.set({{"distributed.worker.memory.terminate": False}})
with LocalCluster(n_workers={RANKS}, threads_per_worker=1, dashboard_address=None) as theirs, Client(theirs) as client:
    client.run(lambda: 0)
    before = sum(client.run(pss_bytes).values())
    started = time.perf_counter()
    future = client.scatter(x, broadcast=True)
    workers = list(client.scheduler_info()["workers"])
    client.gather([client.submit(lambda a: float(a.sum()), future, workers=[w], pure=False) for w in workers])
    took = time.perf_counter() - started
    growth = sum(client.run(pss_bytes).values()) - before
print(took, growth / x.nbytes)
"""


def start_s(kernel: Kernel, reads: str) -> float:
    """Seconds from pressing run to the first line of a cell that reads ``reads``."""
    message, pressed = kernel.press(_START.format(reads=reads))
    kernel.finish(message)
    return float(kernel.run("print(began)")) - pressed


def measure(rounds: int | None = None) -> Iterator[Row]:
    """The array's first run, then ``rounds`` of cells with and without it, by turns."""
    with training_kernel() as kernel:
        kernel.run(_SETUP)
        start_s(kernel, "rest")
        first = start_s(kernel, "x")
        sent_first = float(kernel.run("print(jt.run().sent_bytes)"))
        progress(f"first run with {MEGABYTES} MB: {first:.3f} s, {sent_first:.0f} bytes")
        sent: list[float] = []
        later: list[float] = []
        for _ in range(rounds or ROUNDS):
            without = start_s(kernel, "rest")
            later.append(start_s(kernel, "x") - without)
            sent.append(float(kernel.run("print(jt.run().sent_bytes)")))
        kernel.run(_MEMORY)
        copies = float(kernel.run("print(growth / x.nbytes)"))
        peer_s, peer_copies = map(float, kernel.run(_PEER).split())
    yield row("capture", OURS, "first_run", "bytes", [sent_first])
    yield row("capture", OURS, "first_start", "s", [first])
    yield row("capture", OURS, "later_run", "bytes", sent)
    yield row("capture", OURS, "later_start", "s more", later)
    yield row("capture", OURS, f"memory_{RANKS}_ranks", "copies", [copies])
    yield row("capture", "dask scatter", "first_use", "s", [peer_s])
    yield row("capture", "dask scatter", f"memory_{RANKS}_ranks", "copies", [peer_copies])
