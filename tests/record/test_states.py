"""The states of a run and the moves between them."""

from __future__ import annotations

import pytest

from jupyter_train.record import RunState, legal_move

S = RunState
EVENTS_SAY: list[RunState] = [s for s in RunState if s is not S.LOST]


def test_a_run_begins_pending_and_nothing_else() -> None:
    assert [s for s in RunState if legal_move(None, s)] == [S.PENDING]


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.FAILED, S.CANCELLED])
def test_nothing_follows_the_end(state: RunState) -> None:
    assert state.is_terminal
    assert not any(legal_move(state, s) for s in RunState)


def test_every_other_state_can_reach_an_end() -> None:
    for state in EVENTS_SAY:
        reached: set[RunState] = {state}
        before: set[RunState] = set()
        while reached != before:
            before = set(reached)
            reached |= {new for old in before for new in RunState if legal_move(old, new)}
        assert state.is_terminal or {S.FAILED, S.CANCELLED} <= reached


def test_lost_is_what_a_reader_says_never_a_move() -> None:
    assert not any(legal_move(s, S.LOST) or legal_move(S.LOST, s) for s in RunState)
    assert not S.LOST.is_terminal


def test_only_who_waits_may_repeat_it() -> None:
    assert [s for s in RunState if legal_move(s, s)] == [S.PENDING, S.RETRYING]


def test_success_needs_a_run_that_ran() -> None:
    assert [s for s in RunState if legal_move(s, S.SUCCEEDED)] == [S.RUNNING, S.STOPPING]


def test_a_new_attempt_starts_again() -> None:
    assert legal_move(S.RUNNING, S.RETRYING)
    assert legal_move(S.RETRYING, S.STARTING)
    assert not legal_move(S.RETRYING, S.RUNNING)
