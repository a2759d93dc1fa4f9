"""A run seen, waited for and gone on from in a kernel that did not start it, on a real cluster."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import Notebook, new_notebook

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SETUP = """
import pathlib, time
import torch
import jupyter_train as jt
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
source = torch.Generator().manual_seed(5)
X, Y = torch.randn(83, 10, generator=source), torch.randint(3, (83,), generator=source)
"""
CELL = """torch.manual_seed(1)
model = nn.Sequential(nn.Linear(10, 16), nn.Dropout(0.2), nn.Linear(16, 3))
opt = torch.optim.Adam(model.parameters(), lr=0.01)
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
for epoch in train.epochs(4):
    while epoch == 2 and not pathlib.Path("{go}").exists():
        time.sleep(0.01)
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
    train.checkpoint(model=model)
print("trained")
"""


@pytest.fixture(scope="module")
def kernels(
    shared_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Notebook, Notebook]]:
    """Two kernels over one home, the first with a cluster."""
    folder = tmp_path_factory.mktemp("kernels")
    with new_notebook(shared_home, folder) as first, new_notebook(shared_home, folder) as second:
        assert first.run(SETUP, timeout=60).error is None
        assert second.run(SETUP, timeout=60).error is None
        yield first, second


def shows(notebook: Notebook, claim: Callable[[str], bool], timeout_s: float = 60.0) -> str:
    """The first text that a display of that kernel is changed to and for which ``claim`` holds, after its cell's end."""
    end = time.monotonic() + timeout_s
    texts = []
    while time.monotonic() < end:
        try:
            received = notebook.client.get_iopub_msg(timeout=0.2)
        except queue.Empty:
            continue
        if received["msg_type"] == "update_display_data":
            texts.append(received["content"]["data"]["text/plain"])
            if claim(texts[-1]):
                return str(texts[-1])
    raise AssertionError(f"never shown; shown was: {texts[-3:]}")


def says(notebook: Notebook, expression: str) -> str:
    return notebook.run(f"print({expression})", timeout=60).stdout.strip()


def test_another_kernel_sees_the_history_goes_on_live_and_gets_the_names(
    kernels: tuple[Notebook, Notebook], tmp_path: Path
) -> None:
    first, second = kernels
    go = tmp_path / "go"
    started = first.run("%%train -n 2 --bg --name handed\n" + CELL.format(go=go), timeout=60)
    assert started.error is None, started.all_text
    first.run("while len(jt.run('handed').checkpoints) < 2: time.sleep(0.05)", timeout=60)
    attached = second.run("%train attach handed", timeout=30)
    assert attached.error is None, attached.all_text
    kept = "checkpoints 2 kept, the newest at step 12 (epoch 2)"
    history = shows(second, lambda text: "step 12" in text and kept in text)
    assert "RUNNING · 2 ranks" in history
    go.touch()
    assert "step 24" in shows(second, lambda text: "SUCCEEDED" in text)
    waited = second.run("%train wait handed", timeout=60)
    assert waited.error is None, waited.all_text
    assert "in the notebook now: " in waited.stdout
    assert says(second, "sorted(n for n in ('model', 'opt', 'loader', 'epoch') if n in globals())") == (
        "['epoch', 'loader', 'model', 'opt']"
    )
    result = "jt.run('handed').result()"
    same = f"all(torch.equal(a, model.state_dict()[k]) for k, a in {result}['model'].state_dict().items())"
    assert says(second, same) == "True"


def test_a_run_goes_on_from_a_checkpoint_of_another_kernels_run_to_the_same_bits(
    kernels: tuple[Notebook, Notebook], tmp_path: Path
) -> None:
    first, second = kernels
    (tmp_path / "go").touch()
    cell = CELL.format(go=tmp_path / "go")
    whole = first.run("%%train -n 2 --name entire\n" + cell, timeout=60)
    assert whole.error is None, whole.all_text
    first.end_of("entire")
    weights = "[p.tolist() for p in model.parameters()]"
    expected = says(first, weights)
    resumed = second.run("%%train --resume entire@18 --name rest\n" + cell, timeout=60)
    assert resumed.error is None, resumed.all_text
    assert "resumed from step 18 (epoch 3) of run " in str(resumed.displays[-1]["text/plain"])
    assert says(second, weights) == expected
    assert says(second, "jt.run('rest').metrics.index.tolist()") == str([19, 20, 21, 22, 23, 24])
    assert says(second, "jt.run('rest').view.spec.ranks") == "2"
    nearest = second.run("%%train --resume entire@17\n" + cell)
    assert nearest.error is not None
    assert "--resume entire@18" in nearest.error.value
    compared = second.run("%train compare entire rest", timeout=60)
    assert compared.error is None, compared.all_text
    assert "the code is the same" in compared.all_text


def test_a_kernel_that_ends_leaves_a_view_that_says_how_its_run_is_seen_again(
    kernels: tuple[Notebook, Notebook],
) -> None:
    first, second = kernels
    assert first.run("%%train -n 1 --bg --name orphan\ntime.sleep(600)").error is None
    first.client.shutdown(restart=True)
    left = shows(first, lambda text: "goes on without this kernel: %train attach orphan" in text)
    assert " · as of 20" in left
    assert "in the background" not in left, "nobody can wait there any more"
    assert second.run("%train stop orphan --kill", timeout=30).error is None
    assert second.end_of("orphan") == "CANCELLED"
