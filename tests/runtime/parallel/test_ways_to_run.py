"""Batches per rank, strategy none, one rank, cells that use torch.distributed themselves, captured objects."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from tests.runtime.parallel.cells import LOOP, SETUP
from tests.runtime.parallel.ranks import FIRST_LINE, difference, on_ranks, plain


def test_batches_per_rank_keep_the_written_size() -> None:
    cell = """
        loader = DataLoader(TensorDataset(X, Y), batch_size={size}, shuffle=True)
        val = DataLoader(TensorDataset(X, Y), batch_size=8)
        model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); sizes = []; lengths = [len(loader)]
        for ep in range(2):
            for x, y in loader:
                sizes.append(len(x)); opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
            with torch.no_grad(): out = [sum(len(x) for x, _ in val), len(val)]
        lengths.append(len(loader))
        """
    wanted = plain(cell.format(size=32))
    outcomes = on_ranks(cell.format(size=16), 2, batch="per-rank", keep=("sizes", "lengths"))
    for outcome in outcomes:
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-9
        assert outcome.names["lengths"] == [3, 3]
        assert outcome.out == [83, 11]
    assert outcomes[0].names["sizes"][1] == 16


def test_strategy_none_runs_the_plain_cell_on_every_rank() -> None:
    cell = SETUP + LOOP + "out = [train.sum(train.rank + 1), train.mean(1.0), train.gather(train.rank)]"
    wanted = plain(SETUP + LOOP)
    for outcome in on_ranks(cell, 2, strategy="none"):
        assert difference(wanted.weights, outcome.weights) == 0.0
        assert outcome.out == [3, 1.0, [0, 1]]
        assert outcome.metrics["loss"], "each rank records its own"
        assert outcome.metrics["samples_per_s"]


def test_one_rank_is_the_plain_program() -> None:
    cell = (
        SETUP
        + LOOP
        + "out = [DataLoader.__iter__.__module__, nn.BatchNorm1d.forward.__module__, train.sum(2), train.gather('a')]"
    )
    wanted = plain(SETUP + LOOP)
    (outcome,) = on_ranks(cell, 1)
    assert difference(wanted.weights, outcome.weights) == 0.0
    assert outcome.out == ["torch.utils.data.dataloader", "torch.nn.modules.batchnorm", 2, ["a"]]
    assert len(outcome.metrics["loss"]) == 18


def test_a_cell_with_its_own_ddp_is_left_alone() -> None:
    cell = """
        import torch.distributed as dist
        from torch.utils.data.distributed import DistributedSampler
        assert not dist.is_initialized()
        dist.init_process_group('gloo')
        ds = TensorDataset(X, Y); s = DistributedSampler(ds, shuffle=False)
        loader = DataLoader(ds, batch_size=8, sampler=s)
        model = mlp(); net = nn.parallel.DistributedDataParallel(model); opt = torch.optim.SGD(net.parameters(), lr=.1); sizes = []
        for x, y in loader:
            sizes.append(len(x)); opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
        dist.barrier()
        del net  # its reducer, if it outlives the group, may wait for it forever
        dist.destroy_process_group()
        """
    one, other = on_ranks(cell, 2, keep=("sizes",))
    assert not one.error
    assert sum(one.names["sizes"]) == 42
    assert difference(one.weights, other.weights) == 0.0
    assert one.remarks == [
        f"line {FIRST_LINE + 4}: the cell starts torch.distributed itself: nothing is split or averaged for it from here on"
    ]


def test_objects_made_before_the_cell_are_split_too() -> None:
    made = """
        loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
        model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9); crit = nn.CrossEntropyLoss()
        """

    def before(namespace: dict[str, Any]) -> None:
        exec(textwrap.dedent(made), namespace)
        namespace["kept"] = {name: namespace[name] for name in ("loader", "model", "opt", "crit")}

    wanted = plain(textwrap.dedent(made) + "torch.manual_seed(9)\n" + LOOP)
    cell = "globals().update(kept); torch.manual_seed(9)\n" + LOOP
    for outcome in on_ranks(cell, 2, prepare=before):
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-9


def test_a_model_that_only_rank_0_has_changes_nothing() -> None:
    cell = (
        SETUP
        + """
if train.rank == 0:
    with torch.random.fork_rng(): best = copy.deepcopy(model); a = nn.Linear(3, 3)
"""
        + LOOP
        + """
if train.rank == 0:
    with torch.random.fork_rng(): best = copy.deepcopy(model); shadow = nn.Linear(4, 4)
"""
        + LOOP
    )
    wanted = plain(SETUP + LOOP + LOOP)
    for outcome in on_ranks(cell, 2):
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-9


def test_sums_are_of_the_kind_of_what_is_summed() -> None:
    cell = """
        import numpy
        values = [3, True, 2.5, torch.ones(2), torch.tensor(3), torch.tensor([True]), numpy.ones(3), torch.ones(2) * 1j]
        out = [train.sum(v) for v in values] + [train.mean(v) for v in values[:6]]
        """
    one, other = on_ranks(cell, 2)
    assert not one.error
    wanted = (
        "[6, 2, 5.0, tensor([2., 2.]), tensor(6), tensor([2]), array([2., 2., 2.]), tensor([0.+2.j, 0.+2.j])"
    )
    assert repr(one.out) == repr(other.out)
    assert repr(one.out).replace(", dtype=torch.float64", "").replace(", dtype=torch.complex128", "") == (
        wanted + ", 3.0, 1.0, 2.5, tensor([1., 1.]), tensor(3.), tensor([1.])]"
    )


def test_sum_of_text_is_a_sentence() -> None:
    one, _ = on_ranks("train.sum('a')", 2)
    assert one.error == "TypeError: train.sum and train.mean take numbers, tensors or numpy arrays, not a str"


def test_a_stop_that_one_rank_hears_ends_all_after_the_same_step() -> None:
    cell = (
        SETUP
        + """
steps = 0
for ep in range(100):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward()
        steps += 1
        if train.rank == 1 and steps == 7: train.stop.request()
        opt.step()
"""
    )
    outcomes = on_ranks(cell, 2, keep=("steps",))
    assert [o.kind for o in outcomes] == ["StopRun", "StopRun"]
    assert [o.names["steps"] for o in outcomes] == [8, 8]
    assert difference(outcomes[0].weights, outcomes[1].weights) == 0.0


def test_a_cell_that_asks_whether_to_stop_ends_by_itself() -> None:
    cell = (
        SETUP
        + """
steps = 0
for x, y in loader:
    if train.rank == 1 and steps == 2: train.stop.request()
    opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); steps += 1
    if train.should_stop: break
out = [steps]
"""
    )
    assert [(o.error, o.out) for o in on_ranks(cell, 2)] == [("", [3]), ("", [3])]


NO_TRAINING = {
    "total = sum(float(x.sum()) for x, _ in DataLoader(TensorDataset(X, Y), batch_size=16))": True,
    "total = 1 if os.environ['RANK'] == '0' else 2": False,
    "total = train.sum(1)": False,
    SETUP + LOOP: False,
    "w = torch.ones(3, requires_grad=True); g, = torch.autograd.grad((w * w).sum(), w)": False,
}


@pytest.mark.parametrize("cell", NO_TRAINING)
def test_a_long_cell_that_every_rank_does_whole_says_so(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_train.runtime.parallel.wiring.LONG_S", 0.0)
    said = (
        "nothing was trained with PyTorch here: each of the 2 ranks did all of it; with -n 1 it is done once"
    )
    one, other = on_ranks(cell, 2)
    assert (said in one.remarks) is NO_TRAINING[cell]
    assert other.remarks == []


def test_a_short_one_says_nothing() -> None:
    assert on_ranks("x = 1", 2)[0].remarks == []
