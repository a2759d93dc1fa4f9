"""Cells that catch what a backward raises and go on: the ranks stay together, or are told that they have parted."""

from __future__ import annotations

import pytest

from tests.runtime.parallel.ranks import difference, on_ranks, plain

#: Several buckets; the hook of the first layer's weight runs when others have been sent. ``{who}`` raises.
CELL = """
model = nn.Sequential(nn.Linear(10, {wide}), nn.Tanh(), nn.Linear({wide}, {wide}), nn.Tanh(), nn.Linear({wide}, {wide}), nn.Tanh(), nn.Linear({wide}, 3))
opt = torch.optim.SGD(model.parameters(), lr=0.05)
step = 0
def check(grad):
    if step in (3, 5) and {who}: raise RuntimeError("not this one")
model[{layer}].weight.register_hook(check)
caught = 0
for epoch in range(3):
    for x, y in DataLoader(TensorDataset(X, Y), batch_size=16):
        step += 1
        opt.zero_grad()
        try:
            F.cross_entropy(model(x), y).backward()
        except {catches}:
            caught += 1
            continue
        opt.step()
"""


@pytest.mark.parametrize(("wide", "layer", "hosts"), [(16, 0, 1), (400, 0, 1), (400, 6, 1), (400, 0, 2)])
def test_an_error_that_every_rank_meets_and_catches_costs_that_step_only(
    wide: int, layer: int, hosts: int
) -> None:
    cell = CELL.format(who="True", catches="RuntimeError", wide=wide, layer=layer)
    expected = plain(cell, keep=("caught",))
    outcomes = on_ranks(cell, 2, hosts=hosts, keep=("caught",), limit_s=30)
    for outcome in outcomes:
        assert not outcome.error
        assert outcome.names["caught"] == expected.names["caught"] == 2
        assert difference(outcome.weights, expected.weights) < 1e-9


@pytest.mark.parametrize(
    ("wide", "layer", "hosts", "catches"),
    [
        (16, 0, 1, "RuntimeError"),
        (400, 0, 1, "Exception"),
        (400, 6, 1, "Exception"),
        (400, 0, 2, "Exception"),
    ],
)
def test_an_error_that_one_rank_meets_and_catches_parts_the_ranks_whatever_they_catch(
    wide: int, layer: int, hosts: int, catches: str
) -> None:
    cell = CELL.format(who="train.rank == 1", catches=catches, wide=wide, layer=layer)
    outcomes = on_ranks(cell, 2, hosts=hosts, limit_s=30)
    kinds = [outcome.kind for outcome in outcomes]
    assert "RanksDiverged" in kinds, [outcome.error for outcome in outcomes]
    assert set(kinds) <= {"RanksDiverged", "PeerLost"}


@pytest.mark.parametrize("catches", ["Exception", "BaseException"])
def test_a_cell_that_catches_everything_does_not_outlive_a_lost_rank(catches: str) -> None:
    cell = f"""
        model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=0.05); done = caught = 0
        for x, y in DataLoader(TensorDataset(X, Y), batch_size=16):
            if train.rank == 1 and done == 2: os._exit(1)
            opt.zero_grad()
            try: F.cross_entropy(model(x), y).backward()
            except {catches}: caught += 1
            done += 1
        """
    one, other = on_ranks(cell, 2, keep=("done", "caught"), limit_s=30)
    assert other.kind == "nothing"
    assert one.kind == "PeerLost"
    if catches == "Exception":
        assert (one.names["done"], one.names["caught"]) == (2, 0)


def test_a_rank_that_alone_leaves_out_an_optimizer_step_is_told_at_the_next_backward() -> None:
    cell = """
        model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=0.05); done = 0
        for x, y in DataLoader(TensorDataset(X, Y), batch_size=16):
            opt.zero_grad(); F.cross_entropy(model(x), y).backward(); done += 1
            if done != 2 or train.rank == 0: opt.step()
        """
    for outcome in on_ranks(cell, 2, keep=("done",)):
        assert outcome.kind == "RanksDiverged"
        assert "only some of them did an optimizer step" in outcome.error
        assert outcome.names["done"] == 2
