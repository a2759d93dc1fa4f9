from __future__ import annotations

import collections
import os
from typing import Any

import numpy as np
import pytest
import torch

from jupyter_train.runtime.parallel.samples import digest_of, looks_at_rank, rows_of, slice_rows

Named = collections.namedtuple("Named", "x y")


def test_rows_are_those_of_all_tensors() -> None:
    x, y = torch.zeros(4, 2), np.zeros(4)
    assert rows_of(x) == rows_of({"x": x, "rest": [y, Named(x, y)]}) == 4
    assert rows_of((x, torch.zeros(5))) == 0
    assert rows_of((x, torch.tensor(1.0))) == 0
    assert rows_of((x, "text")) == 0
    assert rows_of([]) == 0


def test_rows_are_cut_in_the_same_kinds_of_collections() -> None:
    x = torch.arange(4)
    got = slice_rows({"a": Named(x, x.numpy()), "b": [x, (x,)]}, slice(1, 3))
    assert type(got["a"]) is Named
    assert (
        got["a"].x.tolist()
        == got["a"].y.tolist()
        == got["b"][0].tolist()
        == got["b"][1][0].tolist()
        == [1, 2]
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor(3), torch.tensor(4)),
        (np.arange(500), np.arange(500)[::-1]),
        (range(0, 9, 2), range(1, 10, 2)),
        (["/tmp/a/0.csv"], ["/tmp/a/1.csv"]),
        ({"label": 1}, {"label": 2}),
        ([1] * 300, [1] * 299),
    ],
)
def test_whole_numbers_and_text_have_digests(one: Any, other: Any) -> None:
    assert digest_of(one) != digest_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor(3.5), torch.tensor(4.5)),
        ("/tmp/a/0.csv", "/tmp/b/0.csv"),
        ("/tmp/a", "/tmp/b"),
        (np.random.default_rng(), np.random.default_rng()),
    ],
)
def test_fractions_folders_and_generators_have_none(one: Any, other: Any) -> None:
    assert digest_of(one) == digest_of(other)


class Plain:
    def __init__(self, files: Any) -> None:
        self.files = files

    def __iter__(self) -> Any:
        return iter(self.files)


class ByRank(Plain):
    def __iter__(self) -> Any:
        return self._mine()

    def _mine(self) -> Any:
        return iter(self.files[int(os.environ["RANK"]) :])


def by_hand(worker: int) -> None:
    torch.distributed.get_rank()


def test_a_data_set_that_reads_its_rank_is_known_by_its_code_and_that_of_what_it_holds() -> None:
    assert not looks_at_rank(Plain([1]), None)
    assert looks_at_rank(ByRank([1]))
    assert looks_at_rank(Plain(ByRank([1])))
    assert looks_at_rank(Plain([1]), by_hand)
    assert not looks_at_rank(Plain(torch.utils.data.TensorDataset(torch.zeros(1))))
