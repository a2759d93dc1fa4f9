"""train.sum, mean and gather: what they give, and that ranks with different things get a sentence and no hang."""

from __future__ import annotations

import pytest

from tests.runtime.parallel.ranks import on_ranks

STRATEGIES = pytest.mark.parametrize("strategy", ["auto", "none"])


def test_sums_are_of_the_same_kind_as_what_is_summed() -> None:
    cell = (
        "import numpy as np\n"
        "r = train.rank + 1\n"
        "given = [r, float(r), np.float32(r), np.arange(3) * r, torch.arange(3.0) * r, torch.tensor(r), "
        "torch.tensor([True]), torch.ones(5000) * r, torch.ones(5000, dtype=torch.cfloat) * r * 1j, torch.ones(0)]\n"
        "out = [(type(v).__name__, str(getattr(v, 'dtype', '')), (v.sum() if hasattr(v, 'sum') else v)) "
        "for v in map(train.sum, given)]\n"
        "out = [(a, b, complex(c)) for a, b, c in out]"
    )
    for outcome in on_ranks(cell, 2):
        assert outcome.out == [
            ("int", "", 3),
            ("float", "", 3),
            ("float32", "float32", 3),
            ("ndarray", "int64", 9),
            ("Tensor", "torch.float64", 9),
            ("Tensor", "torch.int64", 3),
            ("Tensor", "torch.int64", 2),
            ("Tensor", "torch.float64", 15000),
            ("Tensor", "torch.complex64", 15000j),
            ("Tensor", "torch.float64", 0),
        ], outcome.error


@STRATEGIES
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("torch.ones(3 + train.rank)", "rank 0 has a float64 tensor of shape (3,), rank 1 has a float64 tensor of shape (4,)"),
        ("torch.ones(9000 + train.rank)", "tensor of shape (9000,), rank 1 has a float64 tensor of shape (9001,)"),
        ("torch.ones(3, dtype=[torch.float32, torch.int64][train.rank])", "a float32 tensor of shape (3,), rank 1 has a int64"),
        ("[0, torch.tensor(1.0)][train.rank]", "rank 0 has a number, rank 1 has a float64 tensor of shape ()"),
        ("__import__('numpy').ones((1 + 2 * train.rank,))", "an array of shape (1,), rank 1 has an array of shape (3,)"),
    ],
)  # fmt: skip
def test_different_shapes_are_named_on_every_rank(given: str, told: str, strategy: str) -> None:
    for outcome in on_ranks(f"x = {given}\ntrain.sum(x)", 2, strategy=strategy, limit_s=30):
        assert outcome.kind == "ValueError", outcome.error
        assert told in outcome.error


def test_ranks_that_say_the_same_are_told_together() -> None:
    for outcome in on_ranks("train.mean(torch.ones(max(1, train.rank)))", 3):
        assert "ranks 0, 1 have a float64 tensor of shape (1,), rank 2 has" in outcome.error


def test_a_value_that_does_not_pickle_is_named() -> None:
    for outcome in on_ranks("train.gather(lambda: 1)", 2, limit_s=30):
        assert outcome.error.startswith("TypeError: train.gather got a function that does not pickle")


def test_one_rank_that_cannot_pickle_ends_the_others() -> None:
    cell = "train.gather(1 if train.rank == 0 else (n for n in 'ab'))"
    first, second = on_ranks(cell, 2, limit_s=30)
    assert second.error.startswith("TypeError: train.gather got a generator that does not pickle")
    assert first.kind == "PeerLost"


@STRATEGIES
def test_a_broken_pickle_is_named_with_its_rank_on_every_rank(strategy: str) -> None:
    cell = (
        "class Broken:\n"
        "    def __reduce__(self): return (int, ('no number',))\n"
        "train.gather(Broken() if train.rank else 'fine')"
    )
    for outcome in on_ranks(cell, 2, strategy=strategy, limit_s=30):
        assert outcome.error.startswith(
            "ValueError: train.gather: a Broken of rank 1 cannot be put together again"
        )
        assert "invalid literal" in outcome.error


def test_another_call_on_each_rank_is_told_without_data_parallel_too() -> None:
    cell = "train.sum(1) if train.rank else train.gather(1)"
    for outcome in on_ranks(cell, 2, strategy="none", limit_s=30):
        assert "rank 0 is in train.gather; rank 1 is in train.sum or mean" in outcome.error
