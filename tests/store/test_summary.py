"""The row of a run agrees with the view of its events."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_train.record import RunState, fold
from jupyter_train.store import LastValue, RunSummary
from jupyter_train.store.summary import METRICS_KEPT, from_json, summarize, to_json
from tests.store.conftest import Story


def of(run: Story) -> RunSummary:
    return summarize(run.events, RunSummary(run_id=run.run_id))


def test_a_summary_says_what_the_view_says(story: Callable[..., Story]) -> None:
    run = story(notebook="a.ipynb", cluster="local")
    run.states("PENDING", "STARTING", "RUNNING")
    run.loss(1, 2.0)
    run.loss(2, 1.0)
    run.state("FAILED", reason="ValueError: no")
    for n in range(1, len(run.events) + 1):
        view = fold(run.events[:n])
        summary = summarize(run.events[:n], RunSummary(run_id=run.run_id))
        for field in ("run_id", "seq", "state", "reason", "attempt", "started", "running_since", "ended"):
            assert getattr(summary, field) == getattr(view, field), field
    end = of(run)
    assert (end.name, end.ranks, end.session, end.notebook, end.cluster) == (
        ("digits", 2, "kernel-1", "a.ipynb", "local")
    )
    assert end.loss == ("loss", LastValue(step=2, value=1.0))


def test_summing_up_in_pieces_is_summing_up_whole(story: Callable[..., Story]) -> None:
    run = story()
    run.states("PENDING", "STARTING", "RUNNING")
    for step in range(5):
        run.loss(step, step / 2)
    for cut in range(len(run.events)):
        half = summarize(run.events[:cut], RunSummary(run_id=run.run_id))
        assert summarize(run.events, half) == of(run)


def test_the_lowest_rank_speaks_for_a_metric(story: Callable[..., Story]) -> None:
    run = story()
    run.loss(1, 1.0, rank=1)
    assert of(run).metrics["loss"].rank == 1
    run.loss(1, 2.0, rank=0)
    run.loss(2, 3.0, rank=1)
    assert of(run).metrics["loss"] == LastValue(step=1, value=2.0, rank=0)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["lr", "loss"], "loss"),
        (["lr", "accuracy", "d_loss", "g_loss"], "d_loss"),
        (["samples_per_s", "lr/0", "lr/1", "accuracy"], "accuracy"),
        (["lr", "step_time_s"], None),
        ([], None),
    ],
)
def test_where_there_is_room_for_one_metric_it_is_the_loss(
    story: Callable[..., Story], names: list[str], shown: str | None
) -> None:
    run = story()
    run.prints("x")
    for name in names:
        run.loss(1, 1.0, name=name)
    loss = of(run).loss
    assert (loss and loss[0]) == shown


def test_what_every_run_has_is_shown_last(story: Callable[..., Story]) -> None:
    run = story()
    for name in ("step_time_s", "loss", "lr", "lr (2)", "samples_per_s", "accuracy"):
        run.loss(1, 1.0, name=name)
    assert [name for name, _ in of(run).by_interest][:2] == ["loss", "accuracy"]


def test_a_run_of_very_many_metrics_has_a_small_row(story: Callable[..., Story]) -> None:
    run = story()
    for n in range(METRICS_KEPT + 10):
        run.loss(1, 1.0, name=f"m{n}")
    run.loss(2, 5.0, name="m0")
    metrics = of(run).metrics
    assert len(metrics) == METRICS_KEPT
    assert metrics["m0"].step == 2


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("state", {}),
        ("state", {"state": "WHAT"}),
        ("state", {"state": "PENDING", "spec": 5}),
        ("state", {"state": "PENDING", "spec": {"ranks": "many"}}),
        ("metrics", {}),
        ("metrics", {"columns": {"x": 1}}),
        ("metrics", {"columns": {"x": {"step": [1], "value": []}}}),
        ("metrics", {"columns": {"x": {"step": ["a"], "value": ["b"]}}}),
    ],
)
def test_an_odd_payload_is_passed_over(
    story: Callable[..., Story], kind: str, payload: dict[str, Any]
) -> None:
    run = story()
    run.tell(kind, **payload)
    run.loss(1, 1.0)
    assert of(run).seq == 2
    assert of(run).metrics["loss"].value == 1.0


def test_no_environment_in_a_summary(story: Callable[..., Story]) -> None:
    run = story()
    run.state("PENDING", spec=replace(run.spec, environment={"TOKEN": "secret"}).to_dict())
    assert of(run).state is RunState.PENDING
    assert "secret" not in repr(of(run))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["$f", "$$f"]), inner),
        max_leaves=8,
    )
)
def test_plain_values_survive_json(value: Any) -> None:
    text = to_json(value)
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert from_json(text) == value


def test_nan_survives_json_and_other_things_become_text() -> None:
    assert math.isnan(from_json(to_json({"x": [math.nan]}))["x"][0])
    assert from_json(to_json({"x": (1, {2})})) == {"x": [1, "{2}"]}
