"""Cells that bring their own distribution: left alone, and trained as under torchrun.

Where each of N processes takes every Nth part of a batch in order, the average of their gradients is that of the
plain loop with a batch N times as large: that is what they are compared with.
"""

from __future__ import annotations

import warnings

import pytest

from tests.runtime.parallel.cells import LOOP, SETUP
from tests.runtime.parallel.ranks import FIRST_LINE, difference, on_ranks, plain

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # these libraries warn of themselves while they are imported
    import accelerate  # noqa: F401 (forked ranks have it then)
    import pytorch_lightning  # noqa: F401

QUIET = "import logging, warnings; warnings.simplefilter('ignore'); logging.disable(logging.WARNING)\n"
DATA = """
loader = DataLoader(TensorDataset(X[:80], Y[:80]), batch_size=16{over}); crit = nn.CrossEntropyLoss()
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
"""
DISTRIBUTED = DATA.format(over=" // train.world_size")
LIT = """
import pytorch_lightning as L
class Lit(L.LightningModule):
    def __init__(s): super().__init__(); s.net = model
    def training_step(s, batch, k): loss = crit(s.net(batch[0]), batch[1]); s.log("train_loss", loss); return loss
    def validation_step(s, batch, k): s.log("val_loss", crit(s.net(batch[0]), batch[1]))
    def configure_optimizers(s): return torch.optim.SGD(s.parameters(), lr=.1, momentum=.9)
trainer = L.Trainer(accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, num_sanity_val_steps=0{more})
"""
OWN = {
    "DistributedDataParallel": DISTRIBUTED
    + """
import torch.distributed as dist
assert not dist.is_initialized()
dist.init_process_group("gloo")
sampler = torch.utils.data.DistributedSampler(loader.dataset, shuffle=False)
loader = DataLoader(loader.dataset, batch_size=loader.batch_size, sampler=sampler)
net = nn.parallel.DistributedDataParallel(model)
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); crit(net(x), y).backward(); opt.step()
del net  # its reducer, if it outlives the group, may wait for it forever
dist.destroy_process_group()
""",
    "fully_shard": DATA.format(over="")
    + """
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo")
net, model = fully_shard(model, mesh=init_device_mesh("cpu", (train.world_size,))), None
opt = torch.optim.SGD(net.parameters(), lr=.1, momentum=.9)
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); crit(net(x), y).backward(); opt.step()
model = nn.ParameterList([p.detach().full_tensor() for p in net.parameters()])
""",
    "accelerate": DISTRIBUTED
    + """
from accelerate import Accelerator
accelerator = Accelerator(cpu=True)
net, opt, loader = accelerator.prepare(model, opt, loader)
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); loss = crit(net(x), y); accelerator.backward(loss); opt.step()
assert accelerator.num_processes == train.world_size
""",
    "Fabric": DISTRIBUTED
    + """
from lightning_fabric import Fabric
fabric = Fabric(accelerator="cpu", devices=train.world_size); fabric.launch()
net, opt = fabric.setup(model, opt); loader = fabric.setup_dataloaders(loader)
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); loss = crit(net(x), y); fabric.backward(loss); opt.step()
""",
    # Its own sampler would shuffle.
    "Trainer": DISTRIBUTED
    + LIT.format(more=", devices=train.world_size, strategy='ddp', use_distributed_sampler=False")
    + """
sampler = torch.utils.data.DistributedSampler(loader.dataset, train.world_size, train.rank, shuffle=False)
trainer.fit(Lit(), DataLoader(loader.dataset, batch_size=loader.batch_size, sampler=sampler))
""",
}
THROUGH = {"accelerate": "accelerate", "Fabric": "lightning_fabric", "Trainer": "pytorch_lightning"}


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", OWN)
def test_a_cell_that_distributes_itself_is_left_alone(name: str, ranks: int) -> None:
    wanted = plain(DATA.format(over="") + LOOP)
    outcomes = on_ranks(QUIET + OWN[name], ranks)
    for outcome in outcomes:
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-9
        assert len(outcome.metrics["loss"]) == 15
    (remark,) = outcomes[0].remarks
    through = f" through {THROUGH[name]}" if name in THROUGH else ""
    assert remark.partition(": ")[2] == (
        f"the cell starts torch.distributed itself{through}: nothing is split or averaged for it from here on"
    )


def test_a_trainer_that_takes_itself_for_one_process_is_one() -> None:
    cell = (
        QUIET
        + SETUP
        + LIT.format(more="")
        + "trainer.fit(Lit(), loader, DataLoader(TensorDataset(X[:40], Y[:40]), batch_size=8))\n"
        "out = [float(trainer.callback_metrics[name]) for name in ('train_loss', 'val_loss')]\n"
    )
    wanted = plain(cell)
    outcomes = on_ranks(cell, 2)
    for outcome in outcomes:
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) == 0.0
        assert outcome.out == wanted.out
    assert len(outcomes[0].metrics["loss"]) == 18
    (remark,) = outcomes[0].remarks
    assert "pytorch_lightning trains here as one process does" in remark
    assert "Trainer(devices=2, strategy='ddp')" in remark


def test_data_parallel_is_the_module_inside_it() -> None:
    wanted = plain(SETUP + LOOP)
    cell = (
        SETUP
        + "net = model; model = nn.DataParallel(net); model.device_ids = [0, 1]  # as where there are GPUs"
    )
    for outcome in on_ranks(cell + LOOP, 2):
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-9


def test_what_was_split_before_torch_distributed_is_started_stays_right() -> None:
    then = OWN["DistributedDataParallel"].replace(DISTRIBUTED, "import torch.distributed as dist\n")
    cell = (
        SETUP
        + LOOP
        + "loader = DataLoader(TensorDataset(X[:80], Y[:80]), batch_size=16 // train.world_size)\n"
        + then
    )
    wanted = plain(
        SETUP + LOOP + "loader = DataLoader(TensorDataset(X[:80], Y[:80]), batch_size=16)\n" + LOOP
    )
    for outcome in on_ranks(cell, 2):
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-9


def test_torch_distributed_in_the_middle_of_a_split_loop_is_refused() -> None:
    cell = (
        SETUP
        + """
import torch.distributed as dist
for k, (x, y) in enumerate(loader):
    if k == 2: dist.init_process_group("gloo")
    opt.zero_grad(); crit(model(x), y).backward(); opt.step()
"""
    )
    for outcome in on_ranks(cell, 2):
        assert outcome.kind == "CellError"
        assert f"line {FIRST_LINE + 7}: torch.distributed is started in the middle of a loop" in outcome.error


def test_a_launcher_of_processes_is_refused_with_its_line_and_the_function_to_call() -> None:
    cell = """
        from accelerate import notebook_launcher
        def work(): pass
        notebook_launcher(work, num_processes=2)
        """
    for outcome in on_ranks(cell, 2):
        assert outcome.kind == "CellError"
        assert outcome.error.startswith(f"CellError: line {FIRST_LINE + 3}: ")
        assert "Call the function itself" in outcome.error
