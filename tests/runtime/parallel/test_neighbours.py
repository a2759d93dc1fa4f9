"""Ranks of one host add up through shared memory; what comes out is what gloo gives, and nothing hangs or is left."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from jupyter_train.runtime.parallel import averaging, hostmemory, neighbours
from jupyter_train.runtime.parallel.hostmemory import map_file, new_file
from tests.runtime.parallel.ranks import Outcome, difference, on_ranks, plain

#: Several buckets (0.3 M numbers of 8 bytes), two lines that call backward, gradients added up over two backwards.
CELL = """
model = nn.Sequential(nn.Linear(10, 400), nn.Tanh(), nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 3))
opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for epoch in range(2):
    for number, (x, y) in enumerate(DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)):
        if number % 3 == 2:
            F.cross_entropy(model(x), y).backward()
        else:
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
        opt.step()
shared = [bool(bucket.parts) for bucket in train._observer.reducer._averager._plan.buckets]
"""


def weights(outcomes: list[Outcome]) -> list[list[np.ndarray]]:
    assert not any(one.error for one in outcomes), [one.error for one in outcomes]
    return [one.weights for one in outcomes]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def by_gloo() -> list[list[np.ndarray]]:
    outcomes = on_ranks(CELL, 2, hosts=2, keep=("shared",))
    assert not any(outcomes[0].names["shared"])
    return weights(outcomes)


def test_two_ranks_get_the_bits_that_gloo_gives(by_gloo: list[list[np.ndarray]]) -> None:
    outcomes = on_ranks(CELL, 2, keep=("shared",))
    assert len(outcomes[0].names["shared"]) > 1
    assert all(outcomes[0].names["shared"])
    assert all(same(mine, by_gloo[0]) for mine in weights(outcomes))


def test_batch_norms_that_talk_in_the_middle_of_a_backward_are_not_in_the_way() -> None:
    """With several buckets the first is on its way when a BatchNorm adds up its own."""
    cell = CELL.replace("nn.Tanh()", "nn.BatchNorm1d(400), nn.Tanh()")
    wanted = plain(cell.partition("shared = ")[0])
    for hosts in (1, 2):
        outcomes = on_ranks(cell, 2, hosts=hosts, keep=("shared",))
        assert all(difference(wanted.weights, mine) <= 1e-9 for mine in weights(outcomes))
        assert outcomes[0].names["shared"] == [hosts == 1] * len(outcomes[0].names["shared"])


def test_more_ranks_end_with_the_same_bits_on_each() -> None:
    first, *others = weights(on_ranks(CELL, 4))
    assert all(same(first, other) for other in others)


def test_where_shared_memory_is_missing_or_too_small_gloo_does_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_gloo: list[list[np.ndarray]]
) -> None:
    monkeypatch.setattr(hostmemory, "SHARED_MEMORY", tmp_path / "none")
    without = on_ranks(CELL, 2, keep=("shared",))
    monkeypatch.undo()
    monkeypatch.setattr(averaging, "MOST_BYTES", 1 << 20)
    too_large = on_ranks(CELL, 2, keep=("shared",))
    for outcomes in (without, too_large):
        assert not any(outcomes[0].names["shared"])
        assert all(same(mine, by_gloo[0]) for mine in weights(outcomes))


def test_where_ranks_cannot_meet_gloo_does_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by_gloo: list[list[np.ndarray]]
) -> None:
    too_deep = tmp_path / ("x" * 120)  # for the address of a Unix socket
    too_deep.mkdir()
    monkeypatch.setattr(neighbours.tempfile, "mkdtemp", lambda prefix: str(too_deep))
    outcomes = on_ranks(CELL, 2, keep=("shared",))
    assert not any(outcomes[0].names["shared"])
    assert all(same(mine, by_gloo[0]) for mine in weights(outcomes))


def test_a_rank_that_dies_while_others_wait_for_its_part_is_noticed_at_once() -> None:
    outcomes = on_ranks(
        """
model = mlp()
for step, (x, y) in enumerate(DataLoader(TensorDataset(X, Y), batch_size=16)):
    model.zero_grad()
    if step == 3 and train.rank == 1:
        os._exit(1)
    F.cross_entropy(model(x), y).backward()
""",
        3,
        limit_s=20.0,
    )
    assert [outcomes[rank].kind for rank in (0, 2)] == ["PeerLost", "PeerLost"]
    assert all(outcomes[rank].seconds < 3 for rank in (0, 2))


def test_a_file_that_has_no_room_is_none(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    assert new_file(room.f_bavail * room.f_frsize, [tmp_path]) == ""
    assert list(tmp_path.iterdir()) == []
    path = new_file(4096, [tmp_path / "none", tmp_path])
    memory = map_file(path, 4096)
    assert memory is not None
    assert bytes(memory) == bytes(4096)
    assert map_file("", 4096) is None
    assert map_file(str(tmp_path / "gone"), 4096) is None
