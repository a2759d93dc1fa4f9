"""Weights, losses and counts of real ranks against the plain cell in one process."""

from __future__ import annotations

import math

import pytest

from tests.runtime.parallel.cells import SPLIT
from tests.runtime.parallel.ranks import difference, on_ranks, plain

ACCEPTANCE = """
images = X; model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
ids = torch.arange(N)
loader = DataLoader(TensorDataset(images, Y, ids), batch_size=12, shuffle=True)
val = DataLoader(TensorDataset(images[:40], Y[:40]), batch_size=8)
crit = nn.CrossEntropyLoss(); seen = []; out = []
for epoch in range(2):
    model.train()
    for x, y, i in loader:
        seen.append((epoch, i.tolist()))
        opt.zero_grad()
        loss = crit(model(x), y)
        loss.backward()
        opt.step()
        out.append(loss.item())
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for x, y in val:
            correct += (model(x).argmax(1) == y).sum().item()
            total += len(y)
    out += [correct / total, total]
"""


def test_split_over_two_hosts_is_like_one_process() -> None:
    cell = SPLIT["a CNN with BatchNorm"]
    wanted = plain(cell)
    for outcome in on_ranks(cell, 2, hosts=2):
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-9


def test_weights_that_start_apart_become_those_of_rank_0() -> None:
    cell = """
        torch.manual_seed(train.rank)
        model = mlp(); torch.manual_seed(3)
        loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
        opt = torch.optim.SGD(model.parameters(), lr=.1)
        for x, y in loader:
            opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
        """
    one, other = on_ranks(cell, 2)
    assert difference(one.weights, other.weights) == 0.0
    assert "initial weights differed" in one.remarks[0]


def test_dropout_differs_between_ranks_while_shuffles_and_single_numbers_agree() -> None:
    cell = """
        loader = DataLoader(TensorDataset(X, torch.arange(N)), batch_size=27, shuffle=True)
        model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); seen = []; drops = []; chosen = []; after = []
        import random, numpy
        for ep in range(3):
            for x, i in loader:
                seen.append(i.tolist()); drops.append((F.dropout(torch.ones(20)).tolist(), numpy.random.rand(3).tolist())); chosen.append((random.random(), numpy.random.rand()))
                opt.zero_grad(); F.cross_entropy(model(F.dropout(x)), Y[i]).backward(); opt.step()
            after.append((float(torch.rand(())), random.random(), float(numpy.random.rand())))
        """
    one, other = on_ranks(cell, 2, keep=("seen", "drops", "chosen", "after"))
    assert not one.error
    for epoch in range(3):
        batches = slice(4 * epoch, 4 * epoch + 4)
        both = [i for o in (one, other) for ids in o.names["seen"][batches] for i in ids]
        assert sorted(both) == list(range(83))
    for mine, theirs in zip(one.names["drops"], other.names["drops"], strict=True):
        assert all(a != b for a, b in zip(mine, theirs, strict=True))
    assert one.names["chosen"] == other.names["chosen"], "single numbers decide for the whole batch"
    assert one.names["after"] == other.names["after"]
    assert difference(one.weights, other.weights) == 0.0


def test_the_loss_that_is_recorded_is_the_global_one() -> None:
    cell = ACCEPTANCE
    wanted = plain(cell)
    one, other = on_ranks(cell, 2)
    recorded = [value for _, value in one.metrics["loss"]]
    assert recorded == pytest.approx(wanted.out[:7] + wanted.out[9:16], rel=1e-9)
    assert [step for step, _ in one.metrics["loss"]] == list(range(1, 15))
    assert all(math.isfinite(value) for _, value in one.metrics["samples_per_s"])
    assert set(other.metrics) == {"step_time_s"}, "rank 0 records what is the same on all"


def test_a_split_cell_says_nothing_when_all_is_as_written() -> None:
    outcomes = on_ranks(SPLIT["a scheduler and a validation loop"], 2)
    assert [outcome.remarks for outcome in outcomes] == [[], []]


def test_shares_counted_by_hand_are_named_with_the_fix() -> None:
    cell = """
        loader = DataLoader(TensorDataset(X, Y), batch_size=16)
        model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); correct = 0; running = 0.; right = 0
        for x, y in loader:
            opt.zero_grad(); z = model(x); loss = F.cross_entropy(z, y); loss.backward(); opt.step()
            running += loss.item()
            correct += (z.argmax(1) == y).sum().item()
            right += train.sum((z.argmax(1) == y).sum().item())
        out = [running, right]
        """
    wanted = plain(cell)
    one, _ = on_ranks(cell, 2)
    assert one.out == pytest.approx(wanted.out, rel=1e-9)
    (remark,) = one.remarks
    assert "`correct += train.sum((z.argmax(1) == y).sum().item())` (line " in remark
