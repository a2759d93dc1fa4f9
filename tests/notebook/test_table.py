"""The table of runs."""

from __future__ import annotations

from jupyter_train.notebook.table import RunTable
from jupyter_train.record import RunState
from jupyter_train.store.summary import RunSummary

WHY = "number 2 in the queue: needs 4 workers"


def row(state: RunState, reason: str) -> str:
    run = RunSummary(run_id="20261122-153000-ab12cd", name="digits", state=state, reason=reason)
    return repr(RunTable([run])).splitlines()[1]


def test_who_waits_says_its_place_and_what_for() -> None:
    assert f"PENDING: {WHY}" in row(RunState.PENDING, WHY)
    assert f"RETRYING: {WHY}" in row(RunState.RETRYING, WHY)


def test_who_has_ended_is_described_by_the_state_alone() -> None:
    assert "ValueError" not in row(RunState.FAILED, "ValueError: bad")


def test_a_reason_is_one_line_of_text() -> None:
    shown = row(RunState.PENDING, "a\n\x1b[31mb<b>" + 500 * "x")
    assert "PENDING: a b<b>x" in shown
    assert len(shown) < 300
