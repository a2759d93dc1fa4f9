"""What a checkpoint of 100 MB costs the loop: 20 steps behind one against 20 steps without, in turns in the same run.

A model of 8.4 M parameters and its Adam's state on two ranks, with one thread
each. The snapshot is taken when the loop asks for its next batch and written while it
goes on, so both fall into the 20 steps that follow a call. CPU time is rank 0's, all threads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.kernel import training_kernel
from benchmarks.report import OURS, Row, progress, row

PAIRS = 20
STEPS = 20  #: of a block
RANKS = 2
WARM_BLOCKS = 3  #: the first two checkpoints also clear the pages that all others reuse

_SETUP = """
import json, time
import torch, torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset
width = 1180
model = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(width, width), nn.Tanh())])
optimizer = torch.optim.Adam(model.parameters())
data = TensorDataset(torch.randn({samples}, width))
loader = DataLoader(data, batch_size=32, shuffle=True)
"""

_CELL = """%%train -n {ranks} --no-check --name checkpoint
torch.set_num_threads(1)
stamps = []
for epoch in train.epochs(1):
    for number, (x,) in enumerate(loader, start=1):
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        block, done = divmod(number, {steps})
        if not done:
            stamps.append((time.perf_counter(), time.process_time()))
            if block < {warm} or block % 4 in (1, 2):
                train.checkpoint(model=model, optimizer=optimizer)
if train.rank == 0:
    json.dump(stamps, open({file!r}, "w"))
"""


def has_checkpoint(block: int) -> bool:
    """Whether block ``block``, from 0, begins with a checkpoint: by turns, and who goes first changes."""
    return block % 4 in (1, 2)


def measure(pairs: int | None = None) -> Iterator[Row]:
    """``pairs`` of blocks, all of one run."""
    pairs = pairs or PAIRS
    blocks = WARM_BLOCKS + 1 + 2 * pairs  # pairs begin with an even one
    with training_kernel() as kernel:
        file = kernel.home / "stamps.json"
        kernel.run(f"%%train -n {RANKS}\npass")
        kernel.run(_SETUP.format(samples=32 * STEPS * blocks))
        progress(f"{blocks} blocks of {STEPS} steps")
        kernel.run(_CELL.format(ranks=RANKS, steps=STEPS, warm=WARM_BLOCKS, file=str(file)))
        stamps = json.loads(file.read_text())
        size = _newest_bytes(kernel.home)
        shutil.rmtree(kernel.home / "runs", ignore_errors=True)
    took = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairwise([[0.0, 0.0], *stamps])]
    first = WARM_BLOCKS + 1
    added, cpu, plain = [], [], []
    for block in range(first, len(stamps) - 1, 2):
        behind, without = (block, block + 1) if has_checkpoint(block) else (block + 1, block)
        added.append(1e3 * (took[behind][0] - took[without][0]))
        cpu.append(1e3 * (took[behind][1] - took[without][1]))
        plain.append(1e3 * took[without][0] / STEPS)
    yield row("checkpoint", OURS, "added", "ms", added)
    yield row("checkpoint", OURS, "added CPU", "ms", cpu)
    yield row("checkpoint", OURS, "step without", "ms", plain)
    yield row(
        "checkpoint",
        OURS,
        "added per step",
        "%",
        [100 * a / STEPS / p for a, p in zip(added, plain, strict=True)],
    )
    yield row("checkpoint", OURS, "file", "MB", [size / 1e6])


def _newest_bytes(home: Path) -> int:
    files = sorted(home.glob("runs/*/checkpoint-*.pt"), key=lambda path: path.stat().st_mtime)
    return max((path.stat().st_size for path in files[-2:]), default=0)
