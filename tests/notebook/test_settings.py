"""Settings of Dask's configuration that a run takes along."""

from __future__ import annotations

from collections.abc import Callable

import dask
import pytest

from jupyter_train.errors import TrainError
from jupyter_train.notebook.environment import (
    checkpoint_every_s,
    hang_timeout_s,
    keep_last,
    parting_timeout_s,
    retries,
)


@pytest.mark.parametrize(
    ("given", "seconds"), [("10s", 10.0), ("2 minutes", 120.0), (5, 5.0), ("500ms", 0.5)]
)
@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("parting-timeout", parting_timeout_s),
        ("hang-timeout", hang_timeout_s),
        ("checkpoint-every", checkpoint_every_s),
    ],
)
def test_a_time_is_one_in_dasks_words(
    key: str, read: Callable[[], float], given: object, seconds: float
) -> None:
    with dask.config.set({f"jupyter-train.{key}": given}):
        assert read() == seconds


def test_what_holds_by_itself() -> None:
    assert (parting_timeout_s(), hang_timeout_s(), checkpoint_every_s(), retries()) == (30.0, 300.0, None, 0)
    assert keep_last() == 2
    with dask.config.set({"jupyter-train.checkpoints.keep-last": 5}):
        assert keep_last() == 5


@pytest.mark.parametrize(
    ("key", "read", "given"),
    [
        *(("parting-timeout", parting_timeout_s, given) for given in ("soon", 0, "-3s", None)),
        *(("hang-timeout", hang_timeout_s, given) for given in ("soon", "-3s", None, float("inf"))),
        *(("checkpoint-every", checkpoint_every_s, given) for given in ("soon", 0, "-3s")),
        *(("checkpoints.keep-last", keep_last, given) for given in (0, -1, "2", 2.0, True, None)),
        *(("retries", retries, given) for given in ("many", -1, 2.5, True, None, [])),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(
    key: str, read: Callable[[], object], given: object
) -> None:
    with (
        dask.config.set({f"jupyter-train.{key}": given}),
        pytest.raises(TrainError, match=rf"jupyter-train\.{key}"),
    ):
        read()


def test_a_hang_timeout_of_nothing_means_never() -> None:
    with dask.config.set({"jupyter-train.hang-timeout": 0}):
        assert hang_timeout_s() == 0.0


@pytest.mark.parametrize("given", [2, "2"])
def test_retries_are_a_whole_number(given: object) -> None:
    with dask.config.set({"jupyter-train.retries": given}):
        assert retries() == 2
