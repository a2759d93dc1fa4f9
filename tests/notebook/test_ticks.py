"""Ticks of the time axis."""

from __future__ import annotations

import numpy as np
import pytest

from jupyter_train.notebook.series import StepClock
from jupyter_train.notebook.ticks import step_ticks, time_ticks
from jupyter_train.record import Event, EventKind


@pytest.mark.parametrize("span", [1e-3, 0.05, 0.9, 1.7, 2.0, 59.0, 61.0, 3599.0, 90_000.0, 4e6])
def test_there_are_a_few_ticks_within_the_axis(span: float) -> None:
    ticks = time_ticks(span)
    assert 2 <= len(ticks) <= 12
    assert all(0 <= at <= span * 1.001 for at, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


def test_times_are_read_as_people_say_them() -> None:
    assert [text for _, text in time_ticks(60.0)] == ["0", "10 s", "20 s", "30 s", "40 s", "50 s", "1 min"]
    assert [text for _, text in time_ticks(7200.0)][-1] == "2 h"
    assert "1 h 30" in [text for _, text in time_ticks(7200.0)]


def test_steps_stand_where_they_were_done() -> None:
    clock = StepClock()
    column = {"step": np.array([600]), "value": np.array([0.0])}
    clock.add(
        [
            Event(run_id="r", time=100.0, kind=EventKind.STATE, payload={"state": "RUNNING"}),
            Event(run_id="r", time=160.0, kind=EventKind.METRICS, payload={"columns": {"loss": column}}),
        ]
    )
    assert step_ticks(clock, 100.0, 160.0)[:2] == [(0.0, "0"), (10.0, "100")]
    assert step_ticks(clock, 100.0, 160.0)[-1] == (60.0, "step 600")
    assert step_ticks(StepClock(), 0.0, 1.0) == []
