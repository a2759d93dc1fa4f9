"""Whatever breaks data parallel is noticed twice: by the weights, and by the proof of the run."""

from __future__ import annotations

import pytest

from jupyter_train.record.proof import Verdict
from tests.runtime.parallel.ranks import difference
from tests.runtime.proof import rig

CELLS = {
    "mlp": """
        model = mlp()
        opt = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
        for epoch in range(2):
            for x, y in DataLoader(TensorDataset(X, Y), 16, shuffle=True):
                opt.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                opt.step()
    """,
    "cnn": """
        model = nn.Sequential(
            nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
        )
        opt = torch.optim.AdamW(model.parameters(), lr=0.01)
        for epoch in range(2):
            for x, y in DataLoader(TensorDataset(X[:, None], Y), 16, shuffle=True):
                opt.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                opt.step()
    """,
}
SINGLE = CELLS["cnn"].replace("X[:, None]", "X[:, None].float()").replace("opt =", "model.float(); opt =")


def _weights_differ(proved: rig.Proved, limit: float = 1e-9) -> bool:
    return any(difference(rank.weights, proved.alone.weights) > limit for rank in proved.ranks)


@pytest.mark.parametrize("ranks", [2, 4])
def test_whole_data_parallel_is_the_same_in_weights_and_proof(ranks: int) -> None:
    for proved in rig.prove([*CELLS.values(), SINGLE], ranks=ranks):
        assert proved.proof.verdict is Verdict.SAME, proved.proof
        assert proved.alone.weights[0].dtype == "float32" or not _weights_differ(proved)
        assert proved.proof.steps == 4


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (rig.no_averaging, "not averaged"),
        (rig.double_averaging, "averaged twice"),
        (rig.one_bucket_left_out, "one group of parameters"),
        (rig.wrong_shard, "other samples"),
        (rig.stale_buffers, "steps are the same; then"),
    ],
)
def test_what_is_broken_shows_in_weights_and_proof(broken: rig.Breakage, says: str, ranks: int) -> None:
    for proved in rig.prove([CELLS["mlp"]], ranks=ranks, broken=broken):
        assert not proved.ranks[0].error, proved.ranks[0].error
        assert _weights_differ(proved)
        assert proved.proof.verdict is Verdict.DIFFERS, proved.proof
        assert says in proved.proof.text, proved.proof


def test_statistics_of_a_batchnorm_that_stay_local_show_in_buffers_and_proof() -> None:
    (proved,) = rig.prove([CELLS["cnn"]], ranks=2, broken=rig.local_statistics)
    assert difference(proved.ranks[0].buffers[:2], proved.alone.buffers[:2]) > 1e-6
    assert proved.proof.verdict is Verdict.DIFFERS
    assert "model.1.running_" in proved.proof.text, proved.proof
