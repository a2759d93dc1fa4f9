"""Messages that a kernel sends draw none of the notebook's random numbers."""

from __future__ import annotations

import random

from jupyter_train.cluster.randomness import keep_apart


def test_estimating_the_size_of_a_message_draws_none_of_the_notebooks_numbers() -> None:
    from dask.sizeof import sizeof

    keep_apart()
    keep_apart()
    before = random.getstate()
    assert sizeof(list(range(1000))) > 1000
    assert random.getstate() == before
