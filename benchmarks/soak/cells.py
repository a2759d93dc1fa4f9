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
