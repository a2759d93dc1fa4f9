from __future__ import annotations

import dask
import pytest

from jupyter_train.errors import TrainError
from jupyter_train.notebook.environment import parting_timeout_s


@pytest.mark.parametrize(
    ("given", "seconds"), [("10s", 10.0), ("2 minutes", 120.0), (5, 5.0), ("500ms", 0.5)]
)
def test_the_parting_timeout_is_a_time_in_dasks_words(given: object, seconds: float) -> None:
    with dask.config.set({"jupyter-train.parting-timeout": given}):
        assert parting_timeout_s() == seconds


def test_half_a_minute_by_itself() -> None:
    assert parting_timeout_s() == 30.0


@pytest.mark.parametrize("given", ["soon", 0, "-3s", None])
def test_what_is_no_time_is_refused_with_its_key(given: object) -> None:
    with (
        dask.config.set({"jupyter-train.parting-timeout": given}),
        pytest.raises(TrainError, match=r"jupyter-train\.parting-timeout"),
    ):
        parting_timeout_s()
