"""Which checkpoints stay: enough for a retry, always."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_train.runtime.checkpoint.retention import OnDisk, best_of, ranking, to_drop


def _there(*values: float, whole: int | None = None) -> list[OnDisk]:
    """Numbers 1, 2, …, with a metric; all whole up to number ``whole``."""
    return [
        OnDisk(attempt=1, number=k + 1, metric={"loss": value}, whole=whole is None or k < whole)
        for k, value in enumerate(values)
    ]


def _numbers(dropped: list[OnDisk]) -> list[int]:
    return [one.number for one in dropped]


def test_the_last_few_stay() -> None:
    assert _numbers(to_drop(_there(1, 2, 3, 4), keep_last=2, best=None)) == [1, 2]


def test_the_best_one_stays_beside_them() -> None:
    assert _numbers(to_drop(_there(3, 1, 2, 4, 5), keep_last=1, best="loss")) == [1, 3, 4]
    assert _numbers(to_drop(_there(3, 9, 2, 4, 5), keep_last=1, best="max loss")) == [1, 3, 4]


def test_a_value_that_is_no_number_is_never_the_best() -> None:
    found = best_of(_there(math.nan, 2, math.nan), "loss")
    assert found is not None
    assert found.number == 2
    assert best_of(_there(math.nan), "loss") is None


def test_what_a_retry_would_use_stays_until_a_newer_one_is_whole() -> None:
    assert _numbers(to_drop(_there(1, 2, 3, 4, whole=2), keep_last=1, best=None)) == [1]


@pytest.mark.parametrize("best", ["", "least loss", "a b c"])
def test_best_names_one_metric(best: str) -> None:
    with pytest.raises(ValueError, match="max accuracy"):
        ranking(best)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(allow_nan=True)), max_size=8),
    st.integers(0, 4),
    st.sampled_from([None, "loss", "max loss"]),
)
def test_there_is_always_one_to_go_on_from(
    made: list[tuple[bool, float]], keep_last: int, best: str | None
) -> None:
    there = [
        OnDisk(attempt=1, number=k + 1, whole=whole, metric={"loss": value})
        for k, (whole, value) in enumerate(made)
    ]
    dropped = to_drop(there, keep_last=keep_last, best=best)
    whole = [one for one in there if one.whole]
    assert not whole or whole[-1] not in dropped
    assert set(there[-max(keep_last, 1) :]).isdisjoint(dropped)
