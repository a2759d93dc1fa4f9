"""Which runs are compared with one process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import dask.config
import pytest

from jupyter_train.notebook.proving import key_of, wants_check
from jupyter_train.notebook.session import Session
from jupyter_train.record import Proof, Verdict


@pytest.fixture(autouse=True)
def _as_users_have_it() -> Any:
    with dask.config.set({"jupyter-train.check": True}):
        yield


def _session(verdict: Verdict | None, key: str) -> Session:
    proof = None if verdict is None else Proof(verdict=verdict, text="")
    run = SimpleNamespace(known=SimpleNamespace(proof=proof))
    return Session(id="k", checks={key: "one"}, runs={"one": cast("Any", run)})


KEY = key_of("x = 1", 2)


def test_the_first_run_of_a_text_is_checked_and_one_that_was_proven_is_not_again() -> None:
    assert wants_check(None, KEY, Session(id="k")) is None
    assert wants_check(None, KEY, _session(Verdict.SAME, KEY)) is False
    assert wants_check(None, KEY, _session(Verdict.RANDOM, KEY)) is False


def test_one_that_differs_or_could_not_be_checked_is_checked_again() -> None:
    for verdict in (Verdict.DIFFERS, Verdict.UNCHECKED, None):
        assert wants_check(None, KEY, _session(verdict, KEY)) is None


def test_a_changed_text_and_another_number_of_ranks_are_checked() -> None:
    proven = _session(Verdict.SAME, KEY)
    assert wants_check(None, key_of("x = 2", 2), proven) is None
    assert wants_check(None, key_of("x = 1", 4), proven) is None


def test_what_is_asked_for_counts_and_the_setting_where_nothing_is() -> None:
    assert wants_check(True, KEY, _session(Verdict.SAME, KEY)) is True
    assert wants_check(False, KEY, Session(id="k")) is False
    with dask.config.set({"jupyter-train.check": False}):
        assert wants_check(None, KEY, Session(id="k")) is False
        assert wants_check(True, KEY, Session(id="k")) is True
