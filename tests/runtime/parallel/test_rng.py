from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.rng import Streams


@pytest.fixture(autouse=True)
def same_start() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), random.random(), float(np.random.rand())


def test_the_shared_stream_goes_on_where_it_was_left() -> None:
    wanted = [draw(), draw()]
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    streams = Streams(0, torch.device("cpu"))
    got = [draw()]
    streams.use(private=True)
    draw()
    with streams.shared():
        got.append(draw())
    assert streams.is_private
    assert got == wanted


def test_ranks_have_streams_of_their_own() -> None:
    draws = []
    for rank in range(2):
        torch.manual_seed(3)
        streams = Streams(rank, torch.device("cpu"))
        streams.use(private=True)
        draws.append(draw())
        streams.use(private=False)
    assert all(a != b for a, b in zip(*draws, strict=True))


def test_manual_seed_resets_both_streams() -> None:
    patches, streams = Patches(), Streams(1, torch.device("cpu"))
    streams.install(patches)
    try:
        runs = []
        for _ in range(2):
            streams.use(private=True)
            torch.manual_seed(8)
            own = float(torch.rand(()))
            streams.use(private=False)
            runs.append((own, float(torch.rand(()))))
    finally:
        patches.undo()
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1]
    assert torch.manual_seed is not None
    torch.manual_seed(8)
    assert float(torch.rand(())) == runs[0][1]
