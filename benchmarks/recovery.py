"""How long from ``kill -9`` until the run trains again: of a rank, its zygote, or its worker.

The cell keeps a checkpoint at each epoch and is run with ``--retries``. *Detected* is when the
controller has put the loss on record; the end is the first step that both ranks have done since, by the ranks'
own times. Peer: ``torchrun --max-restarts`` around the same loop, which loads and saves its checkpoint by hand;
there a rank is killed, since its agent is what restarts it. Kinds are interleaved, kills come at random times.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kernel import Kernel, environment, training_kernel
from benchmarks.report import OURS, Row, progress, row

KILLS = 20  #: of each kind
EPOCHS = 60
STEPS = 8  #: an epoch
FIRST_KILL, LAST_KILL = 60, 160  #: the step at which it comes, of all
STEP_S = 0.01
PATIENCE_S = 300.0

_MODEL = """
import os, time
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
data = TensorDataset(torch.randn({samples}, 20), torch.randint(0, 10, ({samples},)))
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))
loss_fn = nn.CrossEntropyLoss()
"""

_STEP = """
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
        time.sleep({pause})
        done.write(f"{{os.getpid()}} {{time.time()}}\\n")
"""

_OURS_SETUP = """
loader = DataLoader(data, batch_size=32, shuffle=True)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
"""

_OURS = (
    """%%train -n 2 --retries 3 --no-check --name {name}
import os, time
done = open({folder!r} + "/" + os.environ["RANK"], "a", buffering=1)
for epoch in train.epochs({epochs}):
    for x, y in loader:
"""
    + _STEP
    + """
    train.checkpoint(model=model, optimizer=optimizer)
done.close()
del done
"""
)

_THEIRS = (
    """
import sys
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data.distributed import DistributedSampler

torch.set_num_threads(1)
dist.init_process_group("gloo")
folder, rank = sys.argv[1], dist.get_rank()
model = DistributedDataParallel(model)
sampler = DistributedSampler(data)
loader = DataLoader(data, batch_size=16, sampler=sampler)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
file, first = folder + "/checkpoint.pt", 0
if os.path.exists(file):
    saved = torch.load(file)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    first = saved["epoch"] + 1
done = open(folder + "/" + str(rank), "a", buffering=1)
for epoch in range(first, {epochs}):
    sampler.set_epoch(epoch)
    for x, y in loader:
"""
    + _STEP
    + """
    if rank == 0:
        state = {{"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}}
        torch.save(state, file + ".part")
        os.replace(file + ".part", file)
    dist.barrier()
del model, optimizer
dist.destroy_process_group()
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What followed one kill, in seconds since it."""

    detected_s: float | None  #: None: nobody keeps a record of it
    trains_s: float


def steps(folder: Path, rank: int) -> list[tuple[int, float]]:
    """Process id and unix time of every step that a rank has done, over all attempts."""
    try:
        lines = (folder / str(rank)).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(pid), float(at)) for pid, _, at in (line.partition(" ") for line in lines) if at]


def trains_again(before: set[int], done: list[list[tuple[int, float]]]) -> float | None:
    """Unix time at which the last of the ranks had done its first step by a process that is not one of ``before``."""
    firsts = [min((at for pid, at in of_rank if pid not in before), default=None) for of_rank in done]
    known = [first for first in firsts if first is not None]
    return max(known) if len(known) == len(firsts) else None


def wait(claim: Callable[[], Any], what: str, died: Callable[[], bool] = lambda: False) -> Any:
    """The first true value of ``claim``.

    Raises:
        RuntimeError: it did not come in time, or what it was to come from has ended.
    """
    until = time.monotonic() + PATIENCE_S
    while not (value := claim()):
        if time.monotonic() > until or died():
            raise RuntimeError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.005)
    return value


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def worker_of(pid: int) -> int:
    """The worker process of a local cluster that a rank belongs to: its session's log says no more than its name."""
    from jupyter_train.runtime.processes import RANK_MARK

    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    rank = next(int(e.partition(b"=")[2]) for e in environ if e.startswith(f"{RANK_MARK}=".encode()))
    home = next(e for e in environ if e.startswith(b"JUPYTER_TRAIN_HOME="))
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            name = (entry / "comm").read_text().strip()
            if name.startswith("jt-w") and home in (entry / "environ").read_bytes().split(b"\0"):
                found[int(name[4:])] = int(entry.name)
    return found[sorted(found)[rank % len(found)]]


VICTIMS: dict[str, Callable[[int], int]] = {
    "rank": lambda pid: pid,
    "zygote": parent,
    "worker": worker_of,
}


def ours(kernel: Kernel, folder: Path, kind: str, at: int) -> Recovery:
    """One run in the warm kernel, of which something is killed once rank 1 has done ``at`` steps."""
    name = folder.name
    cell = _OURS.format(name=name, folder=str(folder), epochs=EPOCHS, pause=STEP_S)
    message, _ = kernel.press(cell)
    wait(lambda: len(steps(folder, 1)) >= at, "the steps before the kill")
    before = {pid for rank in range(2) for pid, _ in steps(folder, rank)}
    victim = VICTIMS[kind](steps(folder, 1)[-1][0])
    killed = time.time()
    os.kill(victim, signal.SIGKILL)
    trains = wait(lambda: trains_again(before, [steps(folder, r) for r in range(2)]), "a step after the kill")
    kernel.finish(message)
    return Recovery(detected_s=_detected(kernel.home, name) - killed, trains_s=trains - killed)


def _detected(home: Path, name: str) -> float:
    from jupyter_train.record import EventKind
    from jupyter_train.store.store import Store

    store = Store(home)
    run = wait(lambda: next((r for r in store.runs() if r.name == name and r.ended), None), name)
    if str(run.state) != "SUCCEEDED":
        raise RuntimeError(f"the run ended {run.state}: {run.reason}")
    errors = [e.time for e in store.events(run.run_id) if e.kind is EventKind.ERROR]
    return min(errors)


def theirs(home: Path, folder: Path, at: int) -> Recovery:
    """One run under torchrun, of which rank 1 is killed once it has done ``at`` steps."""
    script = folder / "script.py"
    script.write_text((_MODEL + _THEIRS).format(samples=32 * STEPS, epochs=EPOCHS, pause=STEP_S))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("--max-restarts=3", f"--log-dir={folder / 'torchelastic'}", str(script), str(folder)),
    ]
    env = {**environment(home), "GLOO_SOCKET_IFNAME": "lo"}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log) as running,
    ):
        try:
            ended = lambda: running.poll() is not None  # noqa: E731
            wait(lambda: len(steps(folder, 1)) >= at, "the steps before the kill", ended)
            before = {pid for rank in range(2) for pid, _ in steps(folder, rank)}
            killed = time.time()
            os.kill(steps(folder, 1)[-1][0], signal.SIGKILL)
            trains = wait(
                lambda: trains_again(before, [steps(folder, r) for r in range(2)]), "a step after", ended
            )
            if running.wait(PATIENCE_S):
                raise RuntimeError(f"torchrun failed:\n{(folder / 'log').read_text()[-3000:]}")
        finally:
            running.terminate()
    return Recovery(detected_s=None, trains_s=trains - killed)


def measure(kills: int | None = None) -> Iterator[Row]:
    """``kills`` of each kind, interleaved with the peer's."""
    chance = random.Random(0)
    found: dict[str, list[Recovery]] = {kind: [] for kind in (*VICTIMS, "torchrun")}
    with training_kernel() as kernel:
        kernel.run(_MODEL.format(samples=32 * STEPS) + _OURS_SETUP)
        kernel.run("%%train -n 2 --name first\npass")
        for number in range(kills or KILLS):
            for kind, so_far in found.items():
                folder = kernel.home / f"{kind}-{number}"
                folder.mkdir()
                at = chance.randint(FIRST_KILL, LAST_KILL)
                one = (
                    theirs(kernel.home, folder, at) if kind == "torchrun" else ours(kernel, folder, kind, at)
                )
                so_far.append(one)
                detected = "" if one.detected_s is None else f"detected after {one.detected_s:.2f} s, "
                progress(f"{kind}: {detected}trains again after {one.trains_s:.2f} s")
    for kind in VICTIMS:
        known = [one.detected_s for one in found[kind] if one.detected_s is not None]
        yield row("recovery", OURS, f"{kind}_detected", "s", known)
        yield row("recovery", OURS, f"{kind}_trains", "s", [one.trains_s for one in found[kind]])
    yield row("recovery", "torchrun", "rank_trains", "s", [one.trains_s for one in found["torchrun"]])
