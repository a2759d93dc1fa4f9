"""A run repeated, and one taken up again from its states, trains the same weights to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runtime.parallel.ranks import Way, together

#: The first epoch is ``begin``; the states before each epoch outlive the cell in its process.
CELL = """
import builtins
torch.manual_seed(3)
{model}
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True)
begin = {begin}
if begin:
    states = builtins.kept[begin]
    model.load_state_dict(states[0]); opt.load_state_dict(states[1]); torch.set_rng_state(states[2])
else:
    builtins.kept = []
for epoch in range(begin, 3):
    if not begin:
        builtins.kept.append(copy.deepcopy((model.state_dict(), opt.state_dict(), torch.get_rng_state())))
    for step, (x, y) in enumerate(loader):
        {step}
"""
SMALL = "model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)"
SEVERAL_BUCKETS = """
model = nn.Sequential(nn.Linear(10, 400), nn.BatchNorm1d(400), nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 3))
opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
"""
STEP = "opt.zero_grad(); loss = {loss}; loss.backward(); opt.step()"
CELLS = {
    "several buckets and a BatchNorm": (SEVERAL_BUCKETS, STEP.format(loss="F.cross_entropy(model(x), y)")),
    "a sum": (SMALL, STEP.format(loss="F.cross_entropy(model(x), y, reduction='sum') / len(x)")),
    "accumulation": (
        SMALL,
        "F.cross_entropy(model(x), y).backward()\n        if step % 2 or step == 6: opt.step(); opt.zero_grad()",
    ),
}
BEGINNINGS = (0, 1, 2)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) > 0 and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("ranks", "hosts"), [(2, 1), (4, 1), (4, 2)])
def test_a_run_repeated_or_taken_up_again_has_the_same_bits(ranks: int, hosts: int) -> None:
    runs = [(name, begin) for name in CELLS for begin in (0, *BEGINNINGS)]
    texts = [CELL.format(model=CELLS[name][0], step=CELLS[name][1], begin=begin) for name, begin in runs]
    of_ranks = together(texts, Way(ranks=ranks, hosts=hosts))
    assert not [one.error for outcomes in of_ranks for one in outcomes if one.error]
    undisturbed = {}
    for (name, begin), outcomes in zip(runs, zip(*of_ranks, strict=True), strict=True):
        first, *others = (one.weights for one in outcomes)
        assert all(same(first, other) for other in others), f"{name}: ranks differ"
        assert same(first, undisturbed.setdefault(name, first)), f"{name}, from epoch {begin}"
