"""Cells with loops that cannot be split, on a real cluster: started over, shown once, right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Notebook, new_notebook

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SETUP = """
import torch
import jupyter_train as jt
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
source = torch.Generator().manual_seed(5)
X = torch.randn(83, 10, generator=source, dtype=torch.float64)
def new(): return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, 3)).double()
def pairs(a, b): return F.cross_entropy(a @ b.T, torch.arange(len(a)))
def like(model, reference):
    return all((a - b).abs().max() < 1e-9 for a, b in zip(model.parameters(), reference.parameters(), strict=True))
"""
CELL = """
torch.manual_seed(1)
{model} = new()
opt = torch.optim.SGD({model}.parameters(), lr=.1)
loader = DataLoader(TensorDataset(X, X + .1), batch_size=16, shuffle=True)
print("begin")
for a, b in loader:
    opt.zero_grad(); loss = F.mse_loss({model}(a), {model}(b)).sqrt(); loss.backward(); opt.step()
for epoch in range(2):
    for a, b in loader:
        opt.zero_grad(); loss = pairs({model}(a), {model}(b)); loss.backward(); opt.step()
    print("epoch", epoch)
"""


@pytest.fixture(scope="module")
def notebook(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One kernel for the tests of this file; ``reference`` is what plain cells train."""
    with new_notebook(shared_home, tmp_path_factory.mktemp("notebook")) as opened:
        assert opened.run(SETUP + CELL.format(model="reference"), timeout=60).error is None
        assert opened.run("%%train -n 2\npass", timeout=60).error is None
        yield opened


def shown_at_the_end(messages: list[tuple[str, dict[str, Any]]]) -> str:
    """The text that is left under a cell."""
    text = ""
    for kind, content in messages:
        text = "" if kind == "clear_output" else text + content.get("text", "")
    return text


def says(notebook: Notebook, expression: str) -> str:
    return notebook.run(f"print({expression})").stdout.strip()


def test_two_loops_are_found_one_after_the_other_and_the_next_run_knows(notebook: Notebook) -> None:
    cell = "%%train -n 2 --name pairs\n" + CELL.format(model="model")
    first = notebook.run(cell, timeout=60)
    assert first.error is None, first.all_text
    assert says(notebook, "like(model, reference)") == "True"
    assert shown_at_the_end(first.messages) == "begin\nepoch 0\nepoch 1\n"
    said = str(first.displays[-1]["text/plain"])
    assert re.search(r"line 9: the loss puts .* square root .* loop of line 8 whole", said)
    assert re.search(r"line 12: the loss compares .* loop of line 11 whole", said)
    assert said.count("The cell was started over for it after") == 2
    assert says(notebook, "jt.run('pairs').view.attempt") == "3"
    assert says(notebook, "len(jt.run('pairs').curves['loss'][0][0])") == str(6 * 3), "one curve, not three"
    assert notebook.run("%train log pairs --rank 0").all_text.count("begin") == 3, "the log has all attempts"

    second = notebook.run(cell, timeout=60)
    assert second.error is None, second.all_text
    assert says(notebook, "jt.run('pairs').view.attempt") == "1"
    assert says(notebook, "like(model, reference)") == "True"
    assert "found in an earlier run of this cell" in str(second.displays[-1]["text/plain"])
    changed = notebook.run("def pairs(a, b): return F.mse_loss(a, b)\n" + "pass")
    assert changed.error is None
    third = notebook.run(cell, timeout=60)
    assert says(notebook, "jt.run('pairs').view.attempt") == "2", (
        "a loss that was written anew is looked at anew"
    )
    assert "compares" not in str(third.displays[-1]["text/plain"])


def test_a_function_is_started_over_and_returns_once(notebook: Notebook) -> None:
    reply = notebook.run(
        "def fit(model, data, epochs):\n"
        "    opt = torch.optim.SGD(model.parameters(), lr=.1)\n"
        "    print('fitting')\n"
        "    for epoch in range(epochs):\n"
        "        for (x,) in DataLoader(data, batch_size=16):\n"
        "            opt.zero_grad(); loss = F.mse_loss(model(x), x).log(); loss.backward(); opt.step()\n"
        "    return loss.item()\n"
        "torch.manual_seed(2); mine = nn.Linear(10, 10).double()\n"
        "import copy; other = copy.deepcopy(mine)\n"
        "print('before'); run = jt.submit(fit, mine, TensorDataset(X), 2, ranks=2)\n"
        "print('value', run.value == fit(other, TensorDataset(X), 2), like(mine, other))",
        timeout=60,
    )
    assert reply.error is None, reply.all_text
    assert reply.stdout == "before\nfitting\nfitting\nfitting\nvalue True True\n", (
        "of both attempts, and plainly"
    )
    assert "started over: what stands above was shown by the attempt before" in reply.stderr


def test_a_run_that_is_stopped_while_it_starts_over_ends(notebook: Notebook, tmp_path: Path) -> None:
    flag = tmp_path / "unwinding"
    cell = (
        "%%train -n 2 --name stopped\nimport time, pathlib\nmodel = new(); opt = torch.optim.SGD(model.parameters(), lr=.1)\n"
        "loader = DataLoader(TensorDataset(X), batch_size=16)\n"
        "try:\n"
        "    for (x,) in loader:\n"
        "        model(x).mean().sqrt().abs().backward()\n"
        f"finally:\n    pathlib.Path({str(flag)!r}).touch(); time.sleep(5)\n"
    )
    reply = notebook.run(cell, timeout=60, interrupt_when=flag.exists)
    assert reply.error is not None
    assert reply.error.name == "KeyboardInterrupt"
    assert notebook.end_of("stopped") == "CANCELLED"
