"""How ranks are ended, step by step."""

from __future__ import annotations

from jupyter_train.runtime.escalation import PACKING_S, Due, Step, kill_after, plan


def test_a_stop_asks_then_raises_then_kills() -> None:
    steps = list(plan("stop"))
    assert steps[0] == Due(0.0, Step.ASK)
    assert next(due for due in steps if due.step is Step.RAISE).after_s == 2.0
    assert steps[-1] == Due(4.0, Step.KILL)


def test_the_exception_is_raised_again_for_cells_that_catch_it() -> None:
    assert sum(due.step is Step.RAISE for due in plan("stop")) > 2


def test_a_failure_elsewhere_leaves_time_to_meet_it_too_and_ends_the_rank_within_a_second() -> None:
    steps = list(plan("fail"))
    assert steps[0].after_s == 0.3, "a rank just behind the one that failed binds the names before the error"
    assert Due(0.3, Step.RAISE) in steps
    assert steps[-1] == Due(0.7, Step.KILL)


def test_a_kill_does_nothing_else() -> None:
    assert list(plan("kill")) == [Due(0.0, Step.KILL)]


def test_steps_come_in_order_of_time() -> None:
    for mode in ("stop", "fail", "kill"):
        times = [due.after_s for due in plan(mode)]
        assert times == sorted(times)


def test_a_rank_whose_cell_has_ended_gets_time_to_write_its_results() -> None:
    assert kill_after("stop", left_after_s=1.5) == 1.5 + PACKING_S["stop"]
    assert kill_after("fail", left_after_s=-3.0) == PACKING_S["fail"]
    assert kill_after("stop", left_after_s=None) == 4.0


def test_a_kill_waits_for_no_results() -> None:
    assert kill_after("kill", left_after_s=-1.0) == 0.0
