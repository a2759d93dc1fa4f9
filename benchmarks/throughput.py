"""Steps per second and CPU seconds per step of a small CNN on two ranks, ours and bare torchrun with DDP.

Ours runs as users run it: a cell in a real kernel, with live view, journal and
recorded curves. Start-up is left out on both sides: only steps after a warm-up
are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernel import Kernel, training_kernel
from benchmarks.meter import Stretch, read_stretch
from benchmarks.peers import torchrun
from benchmarks.report import OURS, Row, progress, row
from benchmarks.stats import ratios

PAIRS = 20
WARM_STEPS = 100
STEPS = 1100  #: counted, after the warm ones; some seconds, so that /proc's 10 ms do not matter
_BATCH = 128  #: global

_SETUP = """
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from benchmarks.meter import Meter

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1).repeat(8, 1, 1, 1) / 16
labels = torch.tensor(digits.target).repeat(8)
dataset = TensorDataset(images, labels)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
    nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
)
loss_fn = nn.CrossEntropyLoss()
"""

_LOOP = """
torch.set_num_threads(1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
meter = Meter({file!r}, {first}, {last})
for epoch in range({epochs}):
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        meter.step()
"""

_OURS_LOADER = f"loader = DataLoader(dataset, batch_size={_BATCH}, shuffle=True, drop_last=True)\n"

_THEIRS_BEFORE = f"""
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data.distributed import DistributedSampler

torch.set_num_threads(1)
dist.init_process_group("gloo")
model = DistributedDataParallel(model)
sampler = DistributedSampler(dataset, drop_last=True)
loader = DataLoader(dataset, batch_size={_BATCH // 2}, sampler=sampler, drop_last=True)
"""

_THEIRS_AFTER = """
dist.barrier()
# A reducer that outlives its process group may wait for it forever.
del model, optimizer, loss
dist.destroy_process_group()
"""


def loop(file: Path, warm: int, steps: int) -> str:
    """The training loop, the same text for both."""
    per_epoch = 1797 * 8 // _BATCH
    last = warm + steps
    return _LOOP.format(file=str(file), first=warm, last=last, epochs=-(-last // per_epoch))


def ours(kernel: Kernel, warm: int, steps: int) -> Stretch:
    """One run of ours in a warm kernel; model and data are made anew, as the peer's are."""
    file = kernel.home / "stretch.json"
    kernel.run(_SETUP + _OURS_LOADER)
    kernel.run("%%train -n 2 --name throughput\n" + loop(file, warm, steps))
    return read_stretch(file)


def theirs(folder: Path, warm: int, steps: int) -> Stretch:
    """One run under torchrun."""
    file, script = folder / "stretch.json", folder / "script.py"
    script.write_text(_SETUP + _THEIRS_BEFORE + loop(file, warm, steps) + _THEIRS_AFTER)
    torchrun(script, folder)
    return read_stretch(file)


def measure(pairs: int | None = None, *, warm: int = WARM_STEPS, steps: int = STEPS) -> Iterator[Row]:
    """``pairs`` runs of each, by turns; who goes first changes from pair to pair."""
    pairs = pairs or PAIRS
    mine: list[Stretch] = []
    peers: list[Stretch] = []
    with training_kernel() as kernel:
        folder = kernel.home / "torchrun"
        folder.mkdir()
        kernel.run("%%train -n 2\npass")
        for i in range(pairs):
            if i % 2:
                peers.append(theirs(folder, warm, steps))
                mine.append(ours(kernel, warm, steps))
            else:
                mine.append(ours(kernel, warm, steps))
                peers.append(theirs(folder, warm, steps))
            a, b = mine[-1], peers[-1]
            progress(
                f"pair {i + 1}/{pairs}: {a.steps_per_s:.0f} and {b.steps_per_s:.0f} steps/s, "
                f"{1e3 * a.cpu_s_per_step:.2f} and {1e3 * b.cpu_s_per_step:.2f} CPU ms per step, "
                f"{a.processes} and {b.processes} processes"
            )
    for subject, stretches in ((OURS, mine), ("torchrun", peers)):
        yield row("throughput", subject, "speed", "steps/s", [s.steps_per_s for s in stretches])
        yield row("throughput", subject, "cpu", "ms/step", [1e3 * s.cpu_s_per_step for s in stretches])
    cpu = ratios([s.cpu_s_per_step for s in mine], [s.cpu_s_per_step for s in peers])
    wall = ratios([s.steps_per_s for s in mine], [s.steps_per_s for s in peers])
    yield row("throughput", OURS, "cpu_ratio", "ratio", cpu)
    yield row("throughput", OURS, "wall_ratio", "ratio", wall)
