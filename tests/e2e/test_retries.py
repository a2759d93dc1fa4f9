"""Runs that lose a rank or a worker and go on, on a real cluster."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_train.record import RunView
from jupyter_train.store.store import Store
from tests.e2e.kit import Notebook, new_notebook

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SETUP = """
import os, pathlib, signal, time
import torch
import jupyter_train as jt
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
source = torch.Generator().manual_seed(5)
X, Y = torch.randn(83, 10, generator=source), torch.randint(3, (83,), generator=source)
"""
CELL = """%%train -n 2 --retries 2 --name {name}
torch.manual_seed(1)
{name} = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 3))
opt = torch.optim.Adam({name}.parameters(), lr=0.01)
lr_scheduler = torch.optim.lr_scheduler.StepLR(opt, 2)
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
pathlib.Path(f"{folder}/pid-{{train.rank}}").write_text(str(os.getpid()))
steps = 0
for epoch in train.epochs(4):
    for k, (x, y) in enumerate(loader):
        while epoch == 2 and k == 3 and not pathlib.Path("{folder}/go").exists():
            time.sleep(0.01)
        opt.zero_grad(); loss = F.cross_entropy({name}(x), y); loss.backward(); opt.step()
        steps += 1
    lr_scheduler.step()
    train.checkpoint(model={name})
    print("epoch", epoch)
"""


@pytest.fixture(scope="module")
def notebook(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One kernel for the tests of this file, with a cluster of two workers."""
    with new_notebook(shared_home, tmp_path_factory.mktemp("notebook")) as opened:
        assert opened.run(SETUP, timeout=60).error is None
        assert opened.run("%%train -n 2\npass", timeout=60).error is None
        yield opened


def says(notebook: Notebook, expression: str) -> str:
    return notebook.run(f"print({expression})").stdout.strip()


def view_of(notebook: Notebook, name: str) -> RunView | None:
    """What the journal has of the run so far."""
    store = Store(notebook.home)
    found = [run.run_id for run in store.runs() if run.name == name]
    return store.view(found[0]) if found else None


def once(claim: Callable[[], bool], act: Callable[[], None]) -> Callable[[], bool]:
    """To be asked again and again: acts when ``claim`` holds for the first time, and wants no interrupt."""
    is_done = False

    def ask() -> bool:
        nonlocal is_done
        if not is_done and claim():
            is_done = True
            act()
        return False

    return ask


def test_a_run_that_loses_a_rank_goes_on_and_trains_the_same_bits(notebook: Notebook, tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    calm.mkdir()
    (calm / "go").touch()
    undisturbed = notebook.run(CELL.format(name="calm", folder=calm), timeout=90)
    assert undisturbed.error is None, undisturbed.all_text

    def has_checkpoint() -> bool:
        view = view_of(notebook, "lost")
        return view is not None and len(view.checkpoints) > 1

    def kill() -> None:
        os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
        (tmp_path / "go").touch()

    reply = notebook.run(
        CELL.format(name="lost", folder=tmp_path), timeout=90, interrupt_when=once(has_checkpoint, kill)
    )
    assert reply.error is None, reply.all_text
    notebook.end_of("lost")
    view = view_of(notebook, "lost")
    assert view is not None
    (past,) = view.past
    assert past.reason == "rank 1 was killed by signal 9; attempt 2 of 3 goes on from step 12 (epoch 2)"
    assert past.reason in str(reply.displays[-1]["text/plain"])
    assert says(notebook, "steps") == str(4 * 6)
    same = "all(torch.equal(a, lost.state_dict()[k]) for k, a in calm.state_dict().items())"
    assert says(notebook, same) == "True"
    curves = "[[c.tolist() for c in jt.run(n).curves['loss'][0]] for n in ('calm', 'lost')]"
    assert says(notebook, f"(lambda a, b: a == b and len(a[0]))(*{curves})") == str(4 * 6)


def test_a_cell_that_keeps_no_checkpoint_starts_over_and_says_so(notebook: Notebook, tmp_path: Path) -> None:
    cell = f"""%%train -n 2 --retries 1 --name over
flag = pathlib.Path("{tmp_path}/flag")
print("begin")
if train.rank == 1 and not flag.exists():
    flag.touch(); os.kill(os.getpid(), signal.SIGKILL)
answer = train.sum(21)
"""
    reply = notebook.run(cell, timeout=60)
    assert reply.error is None, reply.all_text
    assert says(notebook, "answer") == "42"
    text = str(reply.displays[-1]["text/plain"])
    assert "rank 1 was killed by signal 9; attempt 2 of 2 starts over: the cell keeps no checkpoint" in text


def test_a_run_that_loses_its_workers_goes_on_with_others(notebook: Notebook, tmp_path: Path) -> None:
    cell = f"""%%train -n 2 --retries 1 --name moved
flag = pathlib.Path("{tmp_path}/flag")
home = ("JUPYTER_TRAIN_HOME=" + os.environ["JUPYTER_TRAIN_HOME"]).encode()
if train.rank == 1 and not flag.exists():
    flag.touch()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            is_worker = open(f"/proc/{{pid}}/comm").read().startswith("jt-w")
            if is_worker and home in open(f"/proc/{{pid}}/environ", "rb").read().split(b"\\0"):
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass
    time.sleep(600)
answer = train.sum(21)
"""
    reply = notebook.run(cell, timeout=90)
    assert reply.error is None, reply.all_text
    assert says(notebook, "answer") == "42"
    text = str(reply.displays[-1]["text/plain"])
    assert re.search(r"was lost, and rank \d with it; attempt 2 of 2 starts over", text), text
