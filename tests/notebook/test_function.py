"""``jt.submit`` and ``jt.on_cluster``, with the cluster in memory."""

from __future__ import annotations

import functools
import os
import pickle
import threading
from typing import Any

import pytest

import jupyter_train as jt
from jupyter_train.errors import CellError, RunError
from jupyter_train.notebook import function as functions
from jupyter_train.notebook.calls import call_options, call_work
from jupyter_train.record import Call
from jupyter_train.runtime import processes
from tests.notebook.conftest import Shell
from tests.notebook.fakes import FakeControl, FakeRun


def fit(model: Any, *more: Any, epochs: int = 1, seed: int = 0, **rest: Any) -> Any:
    """What is called in these tests; the cluster in memory never does."""
    return model, more, epochs, seed, rest


@jt.on_cluster(ranks=2)
def decorated(n: int, ranks: int = 0) -> int:
    return n + ranks


class Trainer:
    @jt.on_cluster(name="trained")
    def train(self, n: int) -> int:
        return n

    def __call__(self, n: int) -> int:
        return n


def returns(value: Any) -> Any:
    def script(run: FakeRun) -> None:
        run.begin()
        run.bring(**{"return value": value})
        run.end()

    return script


def labels(*args: Any, **kwargs: Any) -> tuple[Call, dict[str, Any]]:
    function, *rest = args
    work = call_work(function, tuple(rest), kwargs, notebook={})
    assert work.call is not None
    return work.call, dict(work.given)


def test_arguments_are_called_as_their_parameters() -> None:
    call, given = labels(fit, "m", 1, 2, epochs=3, other=4)
    assert call.function == "function fit"
    assert call.args == ("argument model", "argument more[0]", "argument more[1]")
    assert call.kwargs == {"epochs": "argument epochs", "other": "argument rest['other']"}
    assert given == {
        "function fit": fit,
        "argument model": "m",
        "argument more[0]": 1,
        "argument more[1]": 2,
        "argument epochs": 3,
        "argument rest['other']": 4,
    }


def test_two_arguments_never_share_a_label() -> None:
    def same(x: int, /, **rest: int) -> None: ...

    call, given = labels(same, 1, x=2)
    assert [given[label] for label in (*call.args, *call.kwargs.values())] == [1, 2]


def test_a_builtin_that_tells_no_parameters_is_called_all_the_same() -> None:
    _, given = labels(min, 3, 4, default=5)
    assert given == {"function min": min, "argument args[0]": 3, "argument args[1]": 4, "argument default": 5}


@pytest.mark.parametrize(
    "called", [fit, functools.partial(fit, 1), decorated, Trainer(), Trainer, Trainer().train]
)
def test_the_text_of_the_function_is_kept_with_the_run(called: Any) -> None:
    work = call_work(called, () if called is Trainer else (1,), {}, notebook={})
    assert work.source
    assert work.call is not None
    assert work.call.file == (__file__ if called is not Trainer else "")


def test_arguments_that_do_not_fit_are_refused_before_anything_starts(control: FakeControl) -> None:
    with pytest.raises(TypeError, match=r"^fit\(\) missing a required argument: 'model'$"):
        jt.submit(fit)
    with pytest.raises(TypeError, match="this int cannot be called"):
        jt.submit(3)  # type: ignore[arg-type]
    assert not control.runs


def test_a_keyword_of_both_is_refused_and_the_way_out_works(shell: Shell, control: FakeControl) -> None:
    with pytest.raises(TypeError, match=r"seed is a setting of jt\.submit and a parameter of fit"):
        jt.submit(fit, 1, seed=3)
    jt.on_cluster(seed=3)(fit).submit(1, seed=4)
    assert control.only.spec.seed == 3
    assert control.only.spec.call is not None
    assert control.only.spec.call.kwargs == {"seed": "argument seed"}


def test_settings_reach_the_run(shell: Shell, control: FakeControl) -> None:
    run = jt.submit(
        fit, 1, ranks=2, name="mine", strategy="none", batch="per-rank", sync_bn=False, check=True, timeout="2m", params={"a": (1, 2)}, tags={"t": 1}, keep=["model"]
    )  # fmt: skip
    spec = control.only.spec
    assert (spec.ranks, spec.name, spec.strategy, spec.batch, spec.timeout_s) == (
        2,
        "mine",
        "none",
        "per-rank",
        120,
    )
    assert not spec.sync_batchnorm
    assert spec.params == {"a": [1, 2]}
    assert spec.tags == {"t": "1"}
    assert spec.keep == ("return value", "argument model")
    assert run.id == spec.run_id


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ranks": 0}, "ranks=0: a whole number from 1"),
        ({"ranks": 1.5}, "ranks=1.5: a whole number is needed"),
        ({"strategy": "some"}, "strategy='some': there are auto, none"),
        ({"timeout": "soon"}, "timeout='soon': a duration reads"),
        ({"name": "last"}, "name='last': 'last' already means a run"),
        ({"params": {"a": {1}}}, r"params\['a'\]: a parameter is"),
        ({"params": {"a b": 1}}, "params: 'a b' is not a name"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call_options(settings, [], bg=False)


def test_an_unknown_setting_of_the_decorator_is_named_at_once() -> None:
    with pytest.raises(TypeError, match="no 'rank'; there are: ranks, name"):
        jt.on_cluster(rank=2)(fit)  # type: ignore[call-overload]


def test_a_run_is_called_as_its_function(shell: Shell, control: FakeControl) -> None:
    jt.submit(lambda: 1)
    assert control.only.spec.name == "lambda"


def test_a_decorated_call_gives_the_value(shell: Shell, control: FakeControl) -> None:
    control.script = returns(7)
    assert decorated(3, ranks=9) == 7
    assert control.only.spec.ranks == 2
    assert control.only.spec.call is not None
    assert control.only.spec.call.kwargs == {"ranks": "argument ranks"}
    assert decorated.__name__ == "decorated"


def test_a_method_can_be_decorated(shell: Shell, control: FakeControl) -> None:
    control.script = returns(7)
    assert Trainer().train(3) == 7
    assert control.only.spec.name == "trained"
    assert control.only.spec.call is not None
    assert control.only.spec.call.args == ("argument n",)


def test_value_and_result_are_what_came_back(shell: Shell, control: FakeControl) -> None:
    control.script = returns({"a": 1})
    run = jt.submit(fit, 1)
    assert run.value == {"a": 1}
    assert run.result() is run.value
    assert run.result("return value") == {"a": 1}


def test_a_value_that_stayed_away_is_an_error_and_none_is_a_value(shell: Shell, control: FakeControl) -> None:
    control.script = returns(None)
    assert jt.submit(fit, 1).value is None
    control.runs.clear()

    def nothing(run: FakeRun) -> None:
        run.begin()
        run.bring()
        run.end()

    control.script = nothing
    with pytest.raises(RunError, match="did not come back"):
        _ = jt.submit(fit, 1).value


def test_a_cell_has_no_value(shell: Shell, control: FakeControl) -> None:
    shell.run("%%train\npass")
    with pytest.raises(RunError, match="was a cell"):
        _ = jt.run("last").value


def test_the_error_of_a_function_reads_well_in_a_plain_traceback(shell: Shell, control: FakeControl) -> None:
    def fails(run: FakeRun) -> None:
        run.begin()
        run.error(0, "ZeroDivisionError", "division by zero")
        run.end("FAILED")

    control.script = fails
    run = jt.submit(fit, 1, name="broken")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as raised:
            run.wait()
        (note,) = raised.value.__notes__
        assert note.startswith("ZeroDivisionError in rank 0 of 2, run broken\n")
        assert 'jt.run("broken").log(0)' in note


def test_calls_of_several_threads_do_not_meet(shell: Shell, control: FakeControl) -> None:
    given: dict[str, int] = {}

    def script(run: FakeRun) -> None:
        run.begin()
        run.bring(**{"return value": run.spec.name})
        run.end()

    control.script = script
    threads = [
        threading.Thread(target=lambda n=n: given.update({n: jt.on_cluster(name=n)(fit)(1)}))
        for n in ("a", "b", "c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert given == {"a": "a", "b": "b", "c": "c"}


def test_on_a_rank_a_decorated_function_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(functions.RUN_MARK, "20261122-153000-ab12cd")
    assert decorated(3, 4) == 7
    assert Trainer().train(2) == 2
    with pytest.raises(CellError, match="a rank cannot start a run"):
        jt.submit(fit, 1)
    with pytest.raises(CellError, match="a rank cannot start a run"):
        decorated.submit(1)


def test_the_mark_of_a_rank_is_the_one_that_ranks_have() -> None:
    assert functions.RUN_MARK == processes.RUN_MARK
    assert functions.RUN_MARK not in os.environ


def test_a_decorated_function_of_a_module_pickles_by_name() -> None:
    assert pickle.loads(pickle.dumps(decorated)) is decorated
