from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from jupyter_train.runtime.parallel.decisions import Decisions
from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.rng import Streams


@pytest.fixture
def streams() -> Iterator[list[Streams]]:
    """Those of two ranks; the second's functions stand in, and pass on what is not theirs."""
    patches = Patches()
    torch.manual_seed(3)
    both = [Streams(rank, torch.device("cpu")) for rank in range(2)]
    for one in both:
        one.install(patches)
    yield both
    for one in both:
        one.use(private=False)
    patches.undo()


def numbers(one: Streams) -> list[float]:
    one.use(private=True)
    drawn = [
        random.random(),
        np.random.rand(),
        np.random.beta(1, 2),
        np.random.uniform(-1, 1),
        random.choice(range(99)),
    ]
    one.use(private=False)
    return [float(x) for x in drawn]


def test_single_numbers_are_those_of_all_ranks(streams: list[Streams]) -> None:
    one, other = (numbers(each) for each in streams)
    assert one == other
    assert len(set(one)) == len(one)


def test_arrays_are_each_ranks_own(streams: list[Streams]) -> None:
    drawn = []
    for one in streams:
        one.use(private=True)
        np.random.seed(one.rank)
        drawn.append(
            [np.random.rand(3), np.random.beta(1, [1, 2]), np.random.choice(99, 5), np.random.normal(size=2)]
        )
        one.use(private=False)
    assert all((a != b).any() for a, b in zip(*drawn, strict=True))


def test_each_batch_has_its_own_numbers_however_many_the_last_one_drew(streams: list[Streams]) -> None:
    drawn = []
    for one in streams:
        one.use(private=True)
        before = [random.random() for _ in range(2 + one.rank)]
        one.decisions.next_batch()
        drawn.append((random.random(), float(np.random.rand())))
        assert drawn[-1][0] not in before
        one.use(private=False)
    assert drawn[0] == drawn[1]


def test_what_a_data_set_draws_is_each_ranks_own(streams: list[Streams]) -> None:
    drawn = []
    for one in streams:
        one.use(private=True)
        one.is_reading = True
        drawn.append((random.random(), float(np.random.rand())))
        one.use(private=False)
    assert drawn[0] != drawn[1]


def test_a_seed_begins_them_anew_and_outside_split_loops_nothing_changes(streams: list[Streams]) -> None:
    random.seed(5)
    wanted = random.Random(5).random()
    assert random.random() == wanted
    runs = []
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        twice = []
        for _ in range(2):
            seed(8)
            twice.append(numbers(streams[0]))
        runs.append(twice)
    assert all(one == other for one, other in runs)


def test_whoever_watches_the_own_stream_sees_a_draw() -> None:
    patches, decisions = Patches(), Decisions(1, is_asked=lambda: True)
    decisions.install(patches)
    try:
        python, numpy = random.getstate(), np.random.get_state()[1:3]
        random.random()
        np.random.rand()
        assert random.getstate() != python
        assert np.random.get_state()[2] != numpy[1] or (np.random.get_state()[1] != numpy[0]).any()
    finally:
        patches.undo()
