"""Libraries that distribute by themselves, in a cell as their users write it."""

from __future__ import annotations

import pytest

from tests.e2e.kit import Notebook

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ACCELERATE = """%%train -n {ranks} --seed 3
import torch, torch.nn.functional as F
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset
accelerator = Accelerator()
source = torch.Generator().manual_seed(5)
loader = DataLoader(TensorDataset(torch.randn(64, 10, generator=source), torch.arange(64) % 3), batch_size=16 // accelerator.num_processes)
model = torch.nn.Linear(10, 3); opt = torch.optim.SGD(model.parameters(), lr=.1)
net, opt, loader = accelerator.prepare(model, opt, loader)
for x, y in loader:
    loss = F.cross_entropy(net(x), y)
    opt.zero_grad(); accelerator.backward(loss); opt.step()
weights = [round(float(p.sum()), 5) for p in model.parameters()]
accelerator.num_processes, weights
"""

# Written for `-n 2`: Trainer refuses to start processes in what it takes for a notebook.
LIGHTNING = """%%train -n 2
import torch, torch.nn.functional as F, pytorch_lightning as L
from torch.utils.data import DataLoader, TensorDataset
class Lit(L.LightningModule):
    def __init__(self): super().__init__(); self.net = torch.nn.Linear(10, 3)
    def training_step(self, batch, k): return F.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=.1)
loader = DataLoader(TensorDataset(torch.randn(64, 10), torch.arange(64) % 3), batch_size=8)
trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, enable_checkpointing=False)
trainer.fit(Lit(), loader)
trainer.world_size, trainer.global_step
"""


def test_libraries_share_the_work_among_the_ranks(notebook: Notebook) -> None:
    two = notebook.run(ACCELERATE.format(ranks=2), timeout=60)
    assert two.error is None, two.all_text
    assert "starts torch.distributed itself through accelerate" in two.all_text
    assert "did not come back: net (part of a process group)" in two.all_text
    notebook.run("two = weights")
    one = notebook.run(ACCELERATE.format(ranks=1), timeout=60)
    assert one.error is None, one.all_text
    assert "alike True" in notebook.run("print('alike', two == weights, len(two))").stdout
    fitted = notebook.run(LIGHTNING, timeout=60)
    assert fitted.error is None, fitted.all_text
    assert "(2, 8)" in fitted.all_text
    assert "loss" in fitted.all_text
