"""Steps per second and CPU seconds per step on two ranks, ours and bare torchrun with DDP, of one of ``models``.

Ours runs as users run it: a cell in a real kernel, with live view, journal and
recorded curves. Start-up is left out on both sides: only steps after a warm-up
are counted. So is the proof, which the first run of a cell pays for (measure
``check``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.kernel import Kernel, training_kernel
from benchmarks.meter import Stretch, read_stretch
from benchmarks.models import MODELS, Model
from benchmarks.peers import torchrun
from benchmarks.report import OURS, Row, progress, row
from benchmarks.stats import ratios

PAIRS = 20
RANKS = 2

_LOOP = """
torch.set_num_threads(1)
optimizer = {optimizer}
meter = Meter({file!r}, {first}, {last})
for epoch in range({epochs}):
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        meter.step()
"""

_OURS_LOADER = (
    "loader = DataLoader(dataset, batch_size={batch}, shuffle=True, drop_last=True, num_workers={workers})\n"
)

_THEIRS_BEFORE = """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data.distributed import DistributedSampler

torch.set_num_threads(1)
dist.init_process_group("gloo")
model = DistributedDataParallel(model)
sampler = DistributedSampler(dataset, drop_last=True)
loader = DataLoader(dataset, batch_size={batch}, sampler=sampler, drop_last=True, num_workers={workers})
"""

_THEIRS_AFTER = """
dist.barrier()
# A reducer that outlives its process group may wait for it forever.
del model, optimizer, loss
dist.destroy_process_group()
"""


def loop(model: Model, file: Path) -> str:
    """The training loop, the same text for both."""
    last = model.warm_steps + model.steps
    epochs = -(-last // (model.samples // model.batch))
    return _LOOP.format(
        optimizer=model.optimizer, file=str(file), first=model.warm_steps, last=last, epochs=epochs
    )


def our_setup(model: Model, workers: int) -> str:
    """What the notebook has before the cell: model and data, made anew for each run as the peer's are."""
    return model.setup + _OURS_LOADER.format(batch=model.batch, workers=workers)


def their_script(model: Model, workers: int, file: Path) -> str:
    """The same under DDP, as its tutorial has it."""
    before = _THEIRS_BEFORE.format(batch=model.batch // RANKS, workers=workers)
    return model.setup + before + loop(model, file) + _THEIRS_AFTER


def ours(kernel: Kernel, model: Model, workers: int) -> Stretch:
    """One run of ours in a warm kernel."""
    file = kernel.home / "stretch.json"
    kernel.run(our_setup(model, workers))
    kernel.run(f"%%train -n {RANKS} --no-check --name throughput\n" + loop(model, file))
    return read_stretch(file)


def theirs(folder: Path, model: Model, workers: int) -> Stretch:
    """One run under torchrun."""
    file, script = folder / "stretch.json", folder / "script.py"
    script.write_text(their_script(model, workers, file))
    try:
        torchrun(script, folder, ranks=RANKS)
    except RuntimeError:
        if (
            not file.exists()
        ):  # else it was measured, and aborted while it took its groups down, as it does now and then
            raise
    return read_stretch(file)


def measure(pairs: int | None = None, *, model: str = "cnn", workers: int = 0) -> Iterator[Row]:
    """``pairs`` runs of each, by turns; who goes first changes from pair to pair.

    Args:
        workers: of each loader, on both sides.
    """
    pairs = pairs or PAIRS
    one = MODELS[model]
    mine: list[Stretch] = []
    peers: list[Stretch] = []
    with training_kernel() as kernel:
        folder = kernel.home / "torchrun"
        folder.mkdir()
        kernel.run(f"%%train -n {RANKS}\npass")
        for i in range(pairs):
            if i % 2:
                peers.append(theirs(folder, one, workers))
                mine.append(ours(kernel, one, workers))
            else:
                mine.append(ours(kernel, one, workers))
                peers.append(theirs(folder, one, workers))
            a, b = mine[-1], peers[-1]
            progress(
                f"{model}, pair {i + 1}/{pairs}: {a.steps_per_s:.1f} and {b.steps_per_s:.1f} steps/s, "
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
