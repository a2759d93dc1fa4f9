"""How long from pressing run until the first optimizer step is done on both ranks.

Ours: from ``execute_request`` sent to a real kernel, with model, optimizer and
DataLoader captured from the notebook. Peer: from starting a torchrun subprocess
that does the same work. The end is the later of the two ranks' own times.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernel import Kernel, training_kernel
from benchmarks.peers import torchrun
from benchmarks.report import OURS, Row, progress, row

RUNS = 30
RUNS_PER_PEER = 5  #: how many of ours go between two of the peer's, which take many times as long

_SETUP = """
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
dataset = TensorDataset(images, torch.tensor(digits.target))
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
)
loss_fn = nn.CrossEntropyLoss()
"""

_LOOP = """
import os, time
first_step_done = None
for x, y in loader:
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    if first_step_done is None:
        first_step_done = time.time()
open({folder!r} + "/rank-" + os.environ["RANK"], "w").write(repr(first_step_done))
"""

_OURS_SETUP = """
loader = DataLoader(dataset, batch_size=128, shuffle=True)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
"""

_THEIRS_SETUP = """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data.distributed import DistributedSampler

torch.set_num_threads(1)
dist.init_process_group("gloo")
model = DistributedDataParallel(model)
loader = DataLoader(dataset, batch_size=64, sampler=DistributedSampler(dataset))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
"""

_THEIRS_END = """
dist.barrier()
# A reducer that outlives its process group may wait for it forever.
del model, optimizer, loss
dist.destroy_process_group()
"""


def last_first_step(folder: Path, ranks: int = 2) -> float:
    """Unix time at which the last rank had done its first step; the ranks' files are removed."""
    times = []
    for rank in range(ranks):
        file = folder / f"rank-{rank}"
        times.append(float(file.read_text()))
        file.unlink()
    return max(times)


def ours(kernel: Kernel, folder: Path) -> float:
    """Seconds of one run in the warm kernel."""
    message, pressed = kernel.press("%%train -n 2 --name start\n" + _LOOP.format(folder=str(folder)))
    kernel.finish(message)
    return last_first_step(folder) - pressed


def theirs(folder: Path) -> float:
    """Seconds of one run under torchrun."""
    script = folder / "script.py"
    script.write_text(_SETUP + _THEIRS_SETUP + _LOOP.format(folder=str(folder)) + _THEIRS_END)
    started = torchrun(script, folder)
    return last_first_step(folder) - started


def measure(runs: int | None = None) -> Iterator[Row]:
    """``runs`` of ours, one of the peer's after every few of them."""
    runs = runs or RUNS
    mine: list[float] = []
    peers: list[float] = []
    times_faster: list[float] = []
    with training_kernel() as kernel:
        folder = kernel.home / "start"
        folder.mkdir()
        kernel.run(_SETUP + _OURS_SETUP)
        progress(f"first run, with the start of the cluster: {ours(kernel, folder):.2f} s")
        ours(kernel, folder)
        since: list[float] = []
        for i in range(runs):
            since.append(ours(kernel, folder))
            if len(since) == RUNS_PER_PEER or i == runs - 1:
                peers.append(theirs(folder))
                times_faster.append(peers[-1] / statistics.median(since))
                progress(f"{', '.join(f'{s:.3f}' for s in since)} s; torchrun {peers[-1]:.2f} s")
                mine += since
                since = []
    yield row("start", OURS, "first_step", "s", mine)
    yield row("start", "torchrun", "first_step", "s", peers)
    yield row("start", OURS, "times_faster", "ratio", times_faster)
