"""The cells of the campaigns, as text."""

from __future__ import annotations

#: Run once in the kernel. What is called ``untouched`` no cell names; ``fingerprint`` sees any change to it.
SETUP = """
import ctypes, hashlib, os, pickle, time
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

torch.manual_seed(0)
data = TensorDataset(torch.randn(512, 32), torch.randn(512, 1))

class Slow(Dataset):
    def __len__(self):
        return 512
    def __getitem__(self, index):
        time.sleep(0.002)
        return data[index]

untouched = {"tensor": torch.randn(1000), "words": ["a", "b"], "number": 7}
others = untouched["words"]

def fingerprint():
    same = others is untouched["words"] and type(untouched["tensor"]) is torch.Tensor
    held = pickle.dumps((untouched["tensor"].numpy().tobytes(), untouched["words"], untouched["number"], same))
    return hashlib.sha256(held).hexdigest()

print(fingerprint())
"""

_HEAD = """%%train -n 2 --name {name}
steps_file = os.open(f"{folder}/steps-{{train.rank}}", os.O_CREAT | os.O_WRONLY)
model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 1))
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
steps, begun = 0, time.monotonic()
while train.mean(time.monotonic() - begun) < {length_s}:
    for x, y in {loader}:
        loss = ((model(x) - y) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        steps += 1
        os.pwrite(steps_file, b"%d" % steps, 0)
"""
_LOADER = "DataLoader(data, batch_size=64, shuffle=True)"

#: Where an interrupt finds the ranks → (loader, what each step does besides).
_PLACES = {
    "step": (_LOADER, ""),
    "collective": (_LOADER, "        train.sum(torch.ones(2_000_000))\n"),
    "loader": ("DataLoader(Slow(), batch_size=64, shuffle=True, num_workers=2)", ""),
    "sleep": (_LOADER, "        if steps % 10 == 0:\n            time.sleep(8)\n"),
    "C": (_LOADER, "        if steps % 10 == 0:\n            ctypes.PyDLL(None).sleep(8)\n"),
}
PLACES = tuple(_PLACES)
#: Of these every rank reaches a step within what a graceful stop waits for.
PLACES_WITH_STEPS = ("step", "collective", "loader")


def endless(place: str, *, name: str, folder: str, length_s: float) -> str:
    """A cell that trains for about ``length_s`` and is mostly found at ``place``; each rank writes down its steps."""
    loader, besides = _PLACES[place]
    return _HEAD.format(name=name, folder=folder, length_s=length_s, loader=loader) + besides


#: The run after a fault: short, with something to compare.
NEXT = "%%train -n 2 --name {name}\nanswer = train.sum(train.rank + 20.5)"
NEXT_ANSWER = "print(answer)"

#: One cycle of each kind. Those that are stopped or killed wait for it with a step now and then.
_WAITING = """
model = nn.Linear(32, 1)
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
steps = 0
while True:
    for x, y in DataLoader(data, batch_size=128, shuffle=True):
        loss = ((model(x) - y) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        steps += 1
        time.sleep(0.005)
"""
_RUNNING = """
model = nn.Linear(32, 1)
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
for x, y in DataLoader(data, batch_size=128, shuffle=True, num_workers={workers}):
    loss = ((model(x) - y) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
print("loss", loss.item())
"""
_FAILING = "\nif train.rank == 1:\n    raise ValueError('cycle')\ntrain.sum(1)\n"


def cycle(kind: str, *, name: str, workers: int = 0) -> str:
    """The cell of one cycle, which ends by itself where its kind is ``run`` or ``fail``."""
    body = {"run": _RUNNING.format(workers=workers), "fail": _FAILING}.get(kind, _WAITING)
    return f"%%train -n 2 --name {name}{body}"


#: Trains for a known number of steps; every rank writes a line for each: time, epoch, step, ids of its samples.
_COUNTED = """%%train -n 2 --name {name} --seed 3 --retries 4{options}
class Numbered(Dataset):
    def __len__(self):
        return {samples}
    def __getitem__(self, index):
        x, y = data[index % len(data)]
        return index, x, y

model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Dropout(0.1), nn.Linear(64, 1))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.7)
loader = DataLoader(Numbered(), batch_size={batch}, shuffle=True)
seen = os.open(f"{folder}/seen-{{os.environ['JUPYTER_TRAIN_ATTEMPT']}}-{{train.rank}}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
step = 0
for epoch in train.epochs({epochs}):
    for ids, x, y in loader:
        loss = ((model(x) - y) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        os.write(seen, f"{{time.time()}} {{epoch}} {{step}} {{' '.join(map(str, ids.tolist()))}}\\n".encode())
        train.log(counted=float(step))
        time.sleep({pause_s})
        {checkpoint}
    scheduler.step()
"""
SAMPLES, BATCH = 640, 32
STEPS_AN_EPOCH = SAMPLES // BATCH
CHECKPOINT_EVERY = 7  #: steps; no divisor of those of an epoch, so that most lie in the middle of one
WEIGHTS = (
    "print(hashlib.sha256(b''.join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest())"
)


def counted(*, name: str, folder: str, epochs: int, pause_s: float, options: str = "") -> str:
    """A cell that says of every step what it did, and keeps a checkpoint every few steps."""
    return _COUNTED.format(
        name=name,
        folder=folder,
        samples=SAMPLES,
        batch=BATCH,
        epochs=epochs,
        pause_s=pause_s,
        options=f" {options}" if options else "",
        checkpoint=f"if step % {CHECKPOINT_EVERY} == 0:\n            train.checkpoint()",
    )


def counted_values(epochs: int) -> list[float]:
    """What :func:`counted` logs."""
    return [float(step) for step in range(1, epochs * STEPS_AN_EPOCH + 1)]


#: Logs and prints what can be worked out again: a value with no short binary form, a line for each.
TOLD_STEPS = 80
_TELLING = """%%train -n 2 --name {name}
for step in range({steps}):
    train.log(told=(step + 1) / 3 + train.rank, step=step)
    print(f"rank {{train.rank}} step {{step}} says {{(step + 1) / 7}}")
    time.sleep({pause_s})
"""


def telling(*, name: str, pause_s: float) -> str:
    """A cell whose every value and line is known beforehand."""
    return _TELLING.format(name=name, steps=TOLD_STEPS, pause_s=pause_s)


def told_values(rank: int) -> list[float]:
    """What :func:`telling` logs."""
    return [(step + 1) / 3 + rank for step in range(TOLD_STEPS)]


def told_lines(rank: int) -> list[str]:
    """What :func:`telling` prints."""
    return [f"rank {rank} step {step} says {(step + 1) / 7}" for step in range(TOLD_STEPS)]
