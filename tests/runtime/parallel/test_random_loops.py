"""Loops that draw random numbers: split all the same, alike on all ranks, and learning what one process learns."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.runtime.parallel.cells import RANDOM
from tests.runtime.parallel.ranks import Outcome, Way, difference, side_by_side


@functools.cache
def outcomes_of(ranks: int) -> dict[str, tuple[Outcome, list[Outcome]]]:
    return side_by_side(RANDOM, Way(ranks=ranks))


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", RANDOM)
def test_loops_that_draw_random_numbers_learn_as_well_as_in_one_process(name: str, ranks: int) -> None:
    alone, outcomes = outcomes_of(ranks)[name]
    first = outcomes[0]
    for outcome in outcomes:
        assert not outcome.error
        assert outcome.attempts == 1
        assert difference(first.weights, outcome.weights) == 0
        assert outcome.out == first.out
    assert not any("whole" in remark for remark in first.remarks)
    assert len(first.out) == len(alone.out)
    part = len(first.out) // 3
    began, ended, wanted = (
        float(np.mean(x)) for x in (first.out[:part], first.out[-part:], alone.out[-part:])
    )
    assert ended < began
    assert abs(ended - wanted) < 0.3 * wanted
