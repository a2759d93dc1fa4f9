"""Weights, losses and counts of real ranks against the plain cell in one process."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from tests.runtime.parallel.cells import SPLIT, WHOLE
from tests.runtime.parallel.ranks import Outcome, Way, difference, on_ranks, plain, plainly, script, together

ON_FOUR = frozenset(
    {
        "a CNN with BatchNorm",
        "batches that leave some ranks empty",
        "parameters unused on some steps, some ranks, and always",
        "ignored targets and class weights",
        "targets that are ignored late in training only",
        "a masked mean",
        "a sum divided by len(x), and an L2 term",
        "a second model at the same line",
        "a progress bar and zip",
        "several buckets",
    }
)
PARTS = 4  #: so that one that hangs does not take the others with it
ROUNDING = {"types that change in the middle": 1e-6}  #: goes through float32

ACCEPTANCE = """
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
MODELS = {
    "an MLP with SGD and momentum": """
images = X; model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
""",
    "an MLP with AdamW": """
images = X; model = mlp(); opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
""",
    "a CNN": """
images = torch.randn(N, 1, 8, 8)
model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
""",
}


@pytest.mark.parametrize("name", MODELS)
def test_ranks_train_what_a_plain_script_trains(name: str) -> None:
    cell = MODELS[name] + ACCEPTANCE
    wanted = script(cell, keep=("seen",))
    for ranks in (2, 4):
        outcomes = on_ranks(cell, ranks, keep=("seen",))
        for outcome in outcomes:
            assert not outcome.error
            assert difference(wanted.weights, outcome.weights) < 1e-9
            assert outcome.out == pytest.approx(wanted.out, rel=1e-9)
        for epoch in range(2):
            shares = [
                [i for at, ids in outcome.names["seen"] if at == epoch for i in ids] for outcome in outcomes
            ]
            every = [i for share in shares for i in share]
            assert sorted(every) == list(range(83)), "each sample once, on one rank"
            assert max(map(len, shares)) - min(map(len, shares)) <= 12


@functools.cache
def side_by_side(part: int) -> dict[str, tuple[Outcome, list[Outcome]]]:
    """Some cells of SPLIT: what one process and what ranks came to. Together, since starting processes takes longest."""
    out = {}
    for ranks in (2, 4):
        names = [name for name in list(SPLIT)[part::PARTS] if (ranks == 4) == (name in ON_FOUR)]
        if names:
            cells = [SPLIT[name] for name in names]
            alone, shared = plainly(cells), together(cells, Way(ranks=ranks, limit_s=100))
            for number, name in enumerate(names):
                out[name] = (alone[number], [outcomes[number] for outcomes in shared])
    return out


@pytest.mark.parametrize("name", SPLIT)
def test_split_is_like_one_process(name: str) -> None:
    wanted, outcomes = side_by_side(list(SPLIT).index(name) % PARTS)[name]
    for outcome in outcomes:
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < ROUNDING.get(name, 1e-9)
        for buffer, other in zip(wanted.buffers, outcome.buffers, strict=True):
            np.testing.assert_allclose(other, buffer, rtol=1e-9)
        if wanted.out is not None:
            assert outcome.out == pytest.approx(wanted.out, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_split_is_done_whole_and_named(name: str) -> None:
    wanted = plain(WHOLE[name])
    outcomes = on_ranks(WHOLE[name], 2)
    for outcome in outcomes:
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-12
    assert any(remark.startswith("line ") and "whole" in remark for remark in outcomes[0].remarks)
    assert not outcomes[1].remarks, "one rank speaks for all"


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


def test_dropout_differs_between_ranks_and_shuffles_agree() -> None:
    cell = """
        loader = DataLoader(TensorDataset(X, torch.arange(N)), batch_size=27, shuffle=True)
        model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); seen = []; drops = []; after = []
        import random, numpy
        for ep in range(3):
            for x, i in loader:
                seen.append(i.tolist()); drops.append((F.dropout(torch.ones(20)).tolist(), random.random(), numpy.random.rand()))
                opt.zero_grad(); F.cross_entropy(model(F.dropout(x)), Y[i]).backward(); opt.step()
            after.append((float(torch.rand(())), random.random(), float(numpy.random.rand())))
        """
    one, other = on_ranks(cell, 2, keep=("seen", "drops", "after"))
    assert not one.error
    for epoch in range(3):
        batches = slice(4 * epoch, 4 * epoch + 4)
        both = [i for o in (one, other) for ids in o.names["seen"][batches] for i in ids]
        assert sorted(both) == list(range(83))
    for mine, theirs in zip(one.names["drops"], other.names["drops"], strict=True):
        assert all(a != b for a, b in zip(mine, theirs, strict=True))
    assert one.names["after"] == other.names["after"]
    assert difference(one.weights, other.weights) == 0.0


def test_the_loss_that_is_recorded_is_the_global_one() -> None:
    cell = MODELS["an MLP with SGD and momentum"] + ACCEPTANCE
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
