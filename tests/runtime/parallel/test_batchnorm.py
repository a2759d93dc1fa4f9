"""BatchNorm of the global batch however it is written, and by shares where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runtime.parallel.cells import LOOP
from tests.runtime.parallel.ranks import Outcome, Way, difference, plainly, together

MADE = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True); crit = nn.CrossEntropyLoss()
model = {model}
opt = torch.optim.SGD(model.parameters(), lr=.1)
"""
AFTER = """
model.eval()
with torch.no_grad(): out = [float(sum(crit(model(x), y) for x, y in loader))]
"""
OWN = """
class Own(nn.Module):
    def __init__(s):
        super().__init__(); s.a = nn.Linear(10, 8); s.b = nn.Linear(8, 3)
        s.register_buffer("m", torch.zeros(8)); s.register_buffer("v", torch.ones(8))
    def forward(s, x): return s.b(F.batch_norm(s.a(x), s.m, s.v, None, None, s.training).relu())
"""
INSTANCE = """nn.Sequential(nn.Unflatten(1, (1, 10)), nn.Conv1d(1, 4, 3), nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
    nn.Flatten(), nn.Linear(32, 3))"""
NORM = "nn.Sequential(nn.Linear(10, 8), {norm}, nn.ReLU(), nn.Linear(8, 3))"
LIKE_ONE_PROCESS = {
    "SyncBatchNorm": NORM.format(norm="nn.SyncBatchNorm(8)"),
    "convert_sync_batchnorm": f"nn.SyncBatchNorm.convert_sync_batchnorm({NORM.format(norm='nn.BatchNorm1d(8)')})",
    "the function": "Own()",
    "a lazy one": NORM.format(norm="nn.LazyBatchNorm1d()") + "; model(X[:4])",
    "InstanceNorm with running statistics": INSTANCE,
}


def _cell(model: str) -> str:
    return OWN + MADE.format(model=model) + LOOP + AFTER


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_way_to_write_it_is_that_of_one_process(ranks: int) -> None:
    cells = [_cell(model) for model in LIKE_ONE_PROCESS.values()]
    wanted = plainly(cells)
    for outcomes in together(cells, Way(ranks=ranks)):
        for name, one, outcome in zip(LIKE_ONE_PROCESS, wanted, outcomes, strict=True):
            assert not outcome.error, name
            assert difference(one.weights, outcome.weights) < 1e-9, name
            assert difference(one.buffers, outcome.buffers) < 1e-9, name
            assert np.allclose(one.out, outcome.out, rtol=1e-9, atol=0), name
            assert outcome.remarks == [], name


def _local(model: str, *, ranks: int = 2) -> tuple[Outcome, list[Outcome]]:
    cell = _cell(model)
    (wanted,) = plainly([cell])
    outcomes = [done[0] for done in together([cell], Way(ranks=ranks, sync_batchnorm=False))]
    assert [outcome.error for outcome in outcomes] == [""] * ranks
    return wanted, outcomes


@pytest.mark.parametrize("ranks", [2, 4])
def test_local_statistics_train_otherwise_and_leave_the_same_buffers_everywhere(ranks: int) -> None:
    wanted, outcomes = _local(NORM.format(norm="nn.BatchNorm1d(8)"), ranks=ranks)
    for outcome in outcomes:
        assert difference(wanted.weights, outcome.weights) > 1e-4
        assert difference(outcomes[0].weights, outcome.weights) == 0.0
        assert difference(outcomes[0].buffers, outcome.buffers) == 0.0
        assert outcome.out == outcomes[0].out
    wanted_count, count = (max(float(b.max()) for b in one.buffers) for one in (wanted, outcomes[0]))
    assert count == wanted_count, "num_batches_tracked"


def test_local_statistics_of_one_step_are_those_of_each_share() -> None:
    cell = """
        loader = DataLoader(TensorDataset(X[:16], Y[:16]), batch_size=16)
        model = nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 3)); opt = torch.optim.SGD(model.parameters(), lr=.1); seen = []
        for x, y in loader:
            z = model[0](x); seen += [len(x), float(z.detach().mean(0).abs().max())]
            opt.zero_grad(); F.cross_entropy(model[1](z), y).backward(); opt.step()
        """
    (wanted,) = plainly([cell], keep=("seen",))
    way = Way(ranks=2, sync_batchnorm=False, keep=("seen",))
    for (outcome,) in together([cell], way):
        assert outcome.names["seen"][0] in (7, 9)
        assert outcome.names["seen"][1] < 1e-12, "each share's own mean is taken away"
        assert difference(wanted.buffers[:1], outcome.buffers[:1]) < 1e-12, "the running mean"


def test_a_share_of_one_sample_takes_all_ranks_statistics() -> None:
    cell = (
        _cell(NORM.format(norm="nn.BatchNorm1d(8)"))
        .replace("batch_size=16", "batch_size=3")
        .replace("lr=.1", "lr=.001")
    )
    (wanted,) = plainly([cell])
    for (outcome,) in together([cell], Way(ranks=2, sync_batchnorm=False)):
        assert not outcome.error
        assert difference(wanted.weights, outcome.weights) < 1e-9


def test_a_sync_batchnorm_stays_one() -> None:
    wanted, outcomes = _local(LIKE_ONE_PROCESS["SyncBatchNorm"])
    for outcome in outcomes:
        assert difference(wanted.weights, outcome.weights) < 1e-9
