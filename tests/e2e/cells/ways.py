# Ways of notebooks and scripts.
# %% case: is the main program
# %% cell
def main():
    print("running as main")
    return 0


if __name__ == "__main__":
    code = main()
import sys

module = sys.modules["__main__"].__name__
print(module, main.__module__)

# %% case: parses no arguments
# %% before
import argparse
# %% cell
parser = argparse.ArgumentParser(prog="train", description="a script pasted into a cell")
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=2)
args = parser.parse_args([])
print(args.lr, args.epochs, vars(args))
args

# %% case: parses the arguments of the process
# %% before
import argparse
import sys
# %% cell
parser = argparse.ArgumentParser(prog="train")
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_args()
print(args.lr)

# %% case: imports from the future
# %% cell
from __future__ import annotations


def later(x: Undefined) -> Nowhere:
    return x


value = later(3)
later.__annotations__

# %% case: stays in the future of an earlier cell
# %% before
from __future__ import annotations
# %% cell
def later(x: Undefined) -> Nowhere:
    return x


later.__annotations__

# %% case: uses a module beside the notebook
# %% file: helpers.py
SCALE = 3
calls = []


def scaled(x):
    calls.append(x)
    return SCALE * x


class Model:
    def __init__(self, n):
        self.n = n
# %% before
import helpers
from helpers import Model

old = Model(1)
# %% cell
from helpers import scaled

value = scaled(4) + helpers.SCALE
new = Model(2)
old.n = 10
print(value, isinstance(new, helpers.Model))
# %% after
print(type(new) is Model is helpers.Model, scaled(1), old.n)

# %% case: imports a package beside the notebook for the first time
# %% file: project/__init__.py
from project.core import build
# %% file: project/core.py
def build(n):
    return list(range(n))
# %% file: project/extra/__init__.py
# %% file: project/extra/tools.py
from ..core import build


def build_twice(n):
    return build(n) * 2
# %% cell
import project
from project.extra.tools import build_twice

values = project.build(2) + build_twice(1)
values
# %% after
print(project.core.build(3))

# %% case: changes the module path, folder and environment
# %% file: lib_of_the_cell/deep.py
NAME = "deep"
# %% before
import os
import sys
# %% cell
sys.path.insert(0, os.path.abspath("lib_of_the_cell"))
import deep

os.environ["CELL_MODE"] = "on"
os.makedirs("work", exist_ok=True)
os.chdir("work")
here = os.path.basename(os.getcwd())
print(deep.NAME, here, os.environ["CELL_MODE"])
# %% after
print(os.path.basename(os.getcwd()), os.environ.get("CELL_MODE"))

# %% case: reads the environment of the notebook
# %% before
import os
import sys

os.environ["OMP_CELL"] = "1"
sys.path.append("/nowhere/of_the_cell")
# %% cell
found = os.environ.get("OMP_CELL"), "/nowhere/of_the_cell" in sys.path
found

# %% case: awaits at top level
# %% before
import asyncio


async def fetch(n):
    await asyncio.sleep(0.001)
    return n * 10
# %% cell
one = await fetch(1)
many = await asyncio.gather(*(fetch(n) for n in range(3)))


async def count(n):
    for i in range(n):
        yield i
        await asyncio.sleep(0)


listed = [i async for i in count(3)]
async with asyncio.timeout(5):
    last = await fetch(9)
print(one, many, listed)
last

# %% case: defines coroutines without awaiting
# %% before
import asyncio
# %% cell
async def ping():
    await asyncio.sleep(0)
    return "pong"


def is_coroutine(f):
    return asyncio.iscoroutinefunction(f) if not hasattr(f, "__wrapped__") else None


import inspect

kind = inspect.iscoroutinefunction(ping)
del is_coroutine
kind
# %% after
print(await ping())

# %% case: uses worker processes of a loader
# %% before
import torch
from torch.utils.data import DataLoader, Dataset


class Squares(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return torch.tensor(float(i * i))
# %% cell
loader = DataLoader(Squares(), batch_size=4, num_workers=2, collate_fn=lambda items: torch.stack(items))
batches = [batch.tolist() for batch in loader]
batches

# %% case: pickles and copies
# %% before
import copy
import pickle


class Thing:
    def __init__(self, x):
        self.x = x


thing = Thing([1])
# %% cell
packed = pickle.loads(pickle.dumps(thing))
shallow, deep = copy.copy(thing), copy.deepcopy(thing)
thing.x.append(2)
sizes = len(packed.x), len(shallow.x), len(deep.x)
sizes
# %% after
print(shallow.x is thing.x, type(packed) is Thing)

# %% case: looks into itself
# %% before
import inspect


def documented(x: int = 3) -> int:
    "Adds one."
    return x + 1
# %% cell
signature = str(inspect.signature(documented))
source = inspect.getsource(documented)


def own():
    return 1


own_source = inspect.getsource(own)
caller = inspect.currentframe().f_code.co_name
print(signature, source, own_source)
caller

# %% case: sets library options
# %% before
import decimal

import numpy as np
import torch

torch.set_printoptions(precision=2)
np.set_printoptions(precision=3)
torch.set_default_dtype(torch.float64)
# %% cell
x = torch.tensor([1 / 3, 2 / 3])
n = np.array([1 / 3])
print(x, n)
x.dtype

# %% case: changes library options
# %% before
import numpy as np
import torch
# %% cell
torch.set_default_dtype(torch.float64)
torch.set_printoptions(precision=2)
np.set_printoptions(precision=3)
z = torch.zeros(1)
z.dtype

# %% case: runs without gradients as the notebook does
# %% before
import torch

torch.set_grad_enabled(False)
w = torch.ones(2, requires_grad=True)
# %% cell
y = w * 2
y.requires_grad

# %% case: writes a temporary file
# %% before
import os
import tempfile
# %% cell
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "notes.txt")
    with open(path, "w") as file:
        file.write("hello\nworld\n")
    with open(path) as file:
        lines = file.read().splitlines()
    exists = os.path.exists(path)
gone = not os.path.exists(path)
del folder, path, file
print(lines, exists, gone)

# %% case: leaves a file open
# %% before
from pathlib import Path
# %% cell
out = open("log.txt", "a")
out.write("line\n")
out.flush()
size = Path("log.txt").stat().st_size > 0

# %% case: leaves what cannot travel
# %% before
import threading
# %% cell
lock = threading.Lock()
words = iter(["a", "b"])
result = next(words)
with lock:
    locked = lock.locked()

# %% case: uses a database in memory
# %% before
import sqlite3
# %% cell
db = sqlite3.connect(":memory:")
db.execute("create table t (name text, n integer)")
db.executemany("insert into t values (?, ?)", [("a", 1), ("b", 2)])
rows = db.execute("select name, n * 10 from t order by name").fetchall()
db.close()
del db
rows

# %% case: asks the shell who it is
# %% before
counter = 3
# %% cell
shell = get_ipython()
inside = shell is not None
known = "counter" in shell.user_ns
del shell
inside, known

# %% case: uses the last results
# %% before
base = 20
# %% cell
base + 1
second = base + 2
second

# %% case: refers to a device
# %% before
import torch

device = torch.device("cpu")
name = "cuda" if torch.cuda.is_available() else "cpu"
batch = torch.ones(3, device=device)
# %% cell
moved = batch.to(device) * 2
on = moved.device.type == device.type
model = torch.nn.Linear(3, 1).to(name)
print(on, next(model.parameters()).device.type == name)

# %% case: parallelises with a pool of processes
# %% before
import multiprocessing


def square(n):
    return n * n
# %% cell
with multiprocessing.get_context("fork").Pool(2) as pool:
    squares = pool.map(square, range(5))
del pool
squares

# %% case: simulates and plots nothing
# %% before
import heapq
import random
import statistics

random.seed(3)
# %% cell
queue, served, clock = [], [], 0.0
for customer in range(6):
    clock += random.expovariate(1.0)
    heapq.heappush(queue, (clock + random.random(), customer))
while queue:
    when, customer = heapq.heappop(queue)
    served.append(customer)
print(served, f"{statistics.mean(served):.2f}")
# %% after
print(random.random())
