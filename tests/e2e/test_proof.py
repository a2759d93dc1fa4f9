"""A notebook is told whether its cell trained what one process would."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Notebook

pytestmark = [pytest.mark.cluster]

SETUP = """
import dask.config, torch
import jupyter_train as jt
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
dask.config.set({"jupyter-train.check": True})  # as users have it
torch.manual_seed(0)
loader = DataLoader(TensorDataset(torch.randn(100, 10), torch.randint(0, 3, (100,))), 20, shuffle=True)
model = nn.Linear(10, 3)
opt = torch.optim.SGD(model.parameters(), 0.1)
"""
LOOP = """
for x, y in loader:
    opt.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    opt.step()
"""
SAME = "✓ same as one process ("


def test_the_first_run_of_a_text_is_proven_and_what_is_asked_for_is_done(notebook: Notebook) -> None:
    assert notebook.run(SETUP).error is None
    notebook.run("%%train -n 2 --no-check --name warm\n" + LOOP)
    first = notebook.run("%%train -n 2 --check --name first\n" + LOOP)
    assert SAME in first.all_text
    assert any(SAME in str(shown.get("text/html")) for shown in first.displays)
    again = notebook.run("%%train -n 2 --name again\n" + LOOP)
    assert "one process" not in again.all_text
    told = notebook.run("print(jt.run('first').proof.verdict, jt.run('again').proof)\n%train attach first")
    assert told.stdout.startswith("same None\n")
    assert SAME in told.all_text
    asked = notebook.run("%%train -n 1 --check\n" + LOOP)
    assert "○ not checked against one process: it has one rank" in asked.all_text
    changed = notebook.run("%%train -n 2 --name changed\n" + LOOP + "pass\n")
    assert changed.error is None
    checks = "print(*(jt.run(name).view.spec.check for name in ('first', 'again', 'changed')))"
    assert notebook.run(checks).stdout == "True False None\n"


def test_a_function_call_is_proven_too(notebook: Notebook) -> None:
    assert notebook.run(SETUP).error is None
    function = "def fit(model, loader):\n" + "".join(f"    {line}\n" for line in LOOP.splitlines())
    ran = notebook.run(
        function + "run = jt.submit(fit, model, loader, ranks=2, check=True).wait()\nprint(run.proof.text)"
    )
    assert ran.stdout.startswith("same as one process ("), ran.all_text
