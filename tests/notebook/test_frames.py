"""Runs and metrics as DataFrames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_train.notebook import frames
from jupyter_train.notebook.frames import metrics_table
from jupyter_train.notebook.table import RunTable
from jupyter_train.record import Curve, RunState, RunView
from jupyter_train.store.summary import LastValue, RunSummary

RUN = "20261122-153000-ab12cd"
Points = list[tuple[int, float]]


def curve(points: Points) -> Curve:
    steps, values = zip(*points, strict=True) if points else ((), ())
    return Curve().extended(np.array(steps, np.int64), np.array(values, np.float64))


def view(**curves: dict[int, Points]) -> RunView:
    return RunView(
        run_id=RUN,
        curves={name: {rank: curve(p) for rank, p in of.items()} for name, of in curves.items()},
    )


def plainly(**curves: dict[int, Points]) -> dict[tuple[int, int], dict[str, float]]:
    """By (step, nth value there): what each metric has, mean over the ranks."""
    found: dict[tuple[int, int], dict[str, list[float]]] = {}
    for name, of_ranks in curves.items():
        for points in of_ranks.values():
            seen: dict[int, int] = {}
            for step, value in points:
                nth = seen[step] = seen.get(step, -1) + 1
                found.setdefault((step, nth), {}).setdefault(name, []).append(value)
    return {
        key: {name: math.fsum(values) / len(values) for name, values in row.items()}
        for key, row in sorted(found.items())
    }


POINTS = st.lists(
    st.tuples(st.sampled_from([-3, 0, 1, 2, 7, 2**62]), st.integers(-9, 9).map(float)), max_size=6
)
CURVES = st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.integers(0, 2), POINTS, min_size=1))


@settings(deadline=None, max_examples=200)
@given(curves=CURVES)
def test_every_value_is_in_its_row(curves: dict[str, dict[int, Points]]) -> None:
    frame = metrics_table(view(**curves))
    wanted = plainly(**curves)
    assert list(frame) == list(curves)
    assert frame.index.tolist() == [step for step, _ in wanted]
    assert frame.index.name == "step"
    for name in curves:
        expected = [row.get(name, math.nan) for row in wanted.values()]
        assert frame[name].tolist() == pytest.approx(expected, nan_ok=True)


def test_a_long_run_keeps_every_step() -> None:
    points = [(step, 1.0 / (step + 1)) for step in range(20_000)]
    frame = metrics_table(view(loss={0: points, 1: points}))
    assert frame.shape == (20_000, 1)
    assert frame["loss"].iloc[-1] == 1 / 20_000


def test_infinity_and_nan_stay_what_they_are() -> None:
    frame = metrics_table(view(loss={0: [(1, math.inf), (2, math.nan)]}))
    assert frame["loss"].tolist() == pytest.approx([math.inf, math.nan], nan_ok=True)


def test_without_pandas_it_is_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "find_spec", lambda name: None)
    table = metrics_table(view(loss={0: [(1, 1.0), (2, 3.0)], 1: [(1, 2.0)]}, lr={0: [(5, 0.1)]}))
    steps, values = table["loss"]
    assert (steps.tolist(), values.tolist()) == ([1, 2], [1.5, 3.0])
    assert table["lr"][0].tolist() == [5]


def test_a_run_without_metrics_is_an_empty_frame() -> None:
    frame = metrics_table(view())
    assert frame.shape == (0, 0)
    assert frame.index.name == "step"


def runs() -> RunTable:
    def one(number: int, loss: float, **spec: Any) -> RunSummary:
        return RunSummary(
            run_id=f"20261122-15300{number}-ab12cd",
            name=f"run {number}",
            state=RunState.SUCCEEDED if number else RunState.RUNNING,
            ranks=2,
            started=1_700_000_000.0,
            ended=1_700_000_060.0 if number else None,
            metrics={"loss": LastValue(step=10, value=loss)},
            spec=spec,
        )

    return RunTable(
        [one(0, 0.5, params={"lr": 0.1}), one(1, 0.25, params={"lr": 0.2}, tags={"team": "vision"})],
        now=1_700_000_030.0,
    )


def test_runs_are_a_frame_with_parameters_tags_and_newest_values() -> None:
    frame = runs().to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame["params.lr"].tolist() == [0.1, 0.2]
    assert frame["tags.team"].tolist()[1] == "vision"
    assert frame["metrics.loss"].tolist() == [0.5, 0.25]
    assert frame["took_s"].tolist() == [30.0, 60.0]
    assert frame["step"].tolist() == [10, 10]
    assert str(frame["started"].iloc[0]) == "2023-11-14 22:13:20+00:00"
    assert frame["ended"].isna().tolist() == [True, False]


def test_a_table_of_runs_can_what_a_frame_can() -> None:
    table = runs()
    assert table.sort_values("metrics.loss")["name"].tolist() == ["run 1", "run 0"]
    assert table["metrics.loss"].min() == 0.25
    assert table[table["params.lr"] > 0.15]["name"].tolist() == ["run 1"]
    assert table[["name", "state"]].shape == (2, 2)
    assert table[1].name == "run 1"
    assert [run.name for run in table[:1]] == ["run 0"]
    with pytest.raises(AttributeError):
        _ = table.no_such_thing


def test_a_table_without_runs_is_an_empty_frame() -> None:
    assert len(RunTable([]).to_frame()) == 0


def test_without_pandas_a_table_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_train.notebook.table.find_spec", lambda name: None)
    with pytest.raises(AttributeError, match="sort_values"):
        _ = runs().sort_values
