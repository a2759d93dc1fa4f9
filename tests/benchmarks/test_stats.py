"""Figures are summed up the way their readers think they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stats import interval_of_median, ratios, summarise


def test_a_summary_has_median_percentiles_and_an_interval_around_the_median() -> None:
    summary = summarise([float(v) for v in range(1, 102)])
    assert summary.n == 101
    assert summary.median == 51
    assert summary.p95 == pytest.approx(96)
    assert summary.p99 == pytest.approx(100)
    low, high = summary.ci95
    assert 35 < low < 51 < high < 67


def test_one_value_is_its_own_interval() -> None:
    assert summarise([3.0]).ci95 == (3.0, 3.0)


def test_the_same_values_give_the_same_interval() -> None:
    values = [1.0, 5.0, 2.0, 8.0, 3.0]
    assert summarise(values) == summarise(values)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_measurement_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError):
        summarise(values)


def test_drawing_in_parts_leaves_no_resample_out() -> None:
    many = np.random.default_rng(1).normal(10, 1, 50_000)
    low, high = interval_of_median(many, resamples=200)
    assert low < np.median(many) < high
    assert high - low < 0.05


def test_the_interval_holds_the_true_median_about_95_times_in_100() -> None:
    source = np.random.default_rng(7)
    held = 0
    for seed in range(200):
        low, high = interval_of_median(source.lognormal(0, 0.3, 20), resamples=400, seed=seed)
        held += low <= 1 <= high
    assert 176 <= held <= 200


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=40))
def test_an_interval_never_leaves_the_values(values: list[float]) -> None:
    low, high = interval_of_median(np.asarray(values), resamples=50)
    assert min(values) <= low <= high <= max(values)


def test_ratios_are_taken_pair_by_pair() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError):
        ratios([1.0], [])
