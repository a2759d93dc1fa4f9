"""A rank that does nothing any more while the others wait for it is found, and what it does is on record."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Notebook

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CELL = """%%train -n 2 --name {name} --no-check
import ctypes, os, signal, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
model = nn.Linear(4, 1)
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
def hang():
    {what}
for step, (x, y) in enumerate(DataLoader(data, batch_size=8)):
    if step == 3 and train.rank == 1:
        hang()
    loss = ((model(x) - y) ** 2).mean()
    opt.zero_grad(); loss.backward(); opt.step()
"""


@pytest.mark.timeout(120)
def test_a_rank_that_hangs_ends_the_run_with_its_stacks_on_record(notebook: Notebook) -> None:
    given = {"jupyter-train.hang-timeout": "1s", "jupyter-train.parting-timeout": "500ms"}
    notebook.run(f"import dask; dask.config.set({given})")

    native = "while True: ctypes.PyDLL(None).pause()"  # the interpreter's lock is never let go
    reply = notebook.run(CELL.format(name="native", what=native), timeout=60)
    assert reply.error is not None, reply.all_text
    assert "rank 1 on worker" in reply.error.value
    assert "hung while others waited for it" in reply.error.value
    assert "gave no sign of life for 1 s" in reply.error.value
    assert "Current thread" not in reply.stdout + reply.stderr
    log = notebook.run("%train log native").all_text
    assert "What rank 1 is doing:" in log
    assert "line 9 in hang" in log
    assert "What rank 0 is doing:" in log

    stopped = "os.kill(os.getpid(), signal.SIGSTOP)"
    reply = notebook.run(CELL.format(name="stopped", what=stopped), timeout=60)
    assert reply.error is not None, reply.all_text
    assert "hung while others waited for it" in reply.error.value
    assert "The process is stopped, by SIGSTOP or a debugger" in notebook.run("%train log stopped").all_text
