"""How a failure reads: short, the user's own lines first, and of the type that was raised."""

from __future__ import annotations

import pickle
from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest

from jupyter_train import errors
from jupyter_train.notebook.failure import MAX_LINES, failed_run
from jupyter_train.record import RunSpec, RunState, RunView
from jupyter_train.record.view import UsageReading

SOURCE = "def f(x):\n    return g(x)\n\nf(1)\n"


def payload(kind: str = "ValueError", message: str = "bad", **more: Any) -> dict[str, Any]:
    frames = [
        {"file": "<train digits>", "line": 5, "name": "<module>", "source": "f(1)"},
        {"file": "<train digits>", "line": 3, "name": "f", "source": ""},
    ]
    return {
        "type": kind,
        "module": "builtins",
        "message": message,
        "frames": frames,
        "text": "",
        "secondary": False,
        "cause": "exception",
    } | more


def view(errors_: dict[int, dict[str, Any]], ranks: int = 4, reason: str = "", **more: Any) -> RunView:
    spec = RunSpec(run_id="20261122-153000-ab12cd", name="digits", source=SOURCE, ranks=ranks)
    return RunView(
        run_id=spec.run_id, state=RunState.FAILED, spec=spec, errors=errors_, reason=reason, **more
    )


def lines(error: BaseException) -> list[str]:
    shown: list[str] = error._render_traceback_()  # type: ignore[attr-defined]
    return shown


def failed(errors_: dict[int, dict[str, Any]], **more: Any) -> BaseException:
    known = {k: more.pop(k) for k in ("shipped", "namespace", "cell") if k in more}
    return failed_run(view(errors_, **more), name="digits", **known)


def test_frames_have_the_cells_own_lines_and_sources() -> None:
    error = failed({1: payload()}, cell="Cell In[7]")
    assert lines(error)[:6] == [
        "ValueError in rank 1 of 4, run digits",
        "Cell In[7], line 5",
        "----> 5 f(1)",
        "Cell In[7], line 3, in f",
        "----> 3 return g(x)",
        "ValueError: bad",
    ]


def test_ranks_that_say_the_same_are_one() -> None:
    error = failed({rank: payload() for rank in (0, 1, 2, 3)})
    assert "shown is rank 0; ranks 1–3: the same" in lines(error)
    assert lines(error)[0].startswith("ValueError in ranks 0–3 of 4")


def test_ranks_that_say_something_else_are_named() -> None:
    other = payload("KeyError", "'x'")
    error = failed({0: payload(), 1: other, 2: other, 3: payload()})
    assert "rank 1: KeyError: 'x' (line 3)" in lines(error)
    assert "shown is rank 0; rank 3: the same" in lines(error)


def test_what_only_follows_from_another_rank_is_not_shown() -> None:
    error = failed({0: payload("PeerLost", "rank 1 is gone", secondary=True), 1: payload()})
    assert isinstance(error, ValueError)
    assert not any("PeerLost" in line for line in lines(error))


def test_fifteen_lines_are_enough_for_anything() -> None:
    frames = [
        {"file": f"/home/me/module{n}.py", "line": n, "name": f"f{n}", "source": "x" * 500} for n in range(40)
    ]
    worst = payload("RuntimeError", "\n".join(["CUDA out of memory. " + "y" * 900] * 50), frames=frames)
    kinds = {rank: payload(f"E{rank}", "z" * 999) for rank in range(1, 30)}
    error = failed({0: worst, **kinds}, ranks=30)
    assert len(lines(error)) <= MAX_LINES
    assert all("\n" not in line and len(line) < 400 for line in lines(error))
    assert "RuntimeError in rank 0" in lines(error)[0]
    assert lines(error)[-1].startswith("→")
    assert any("/home/me/module39.py" in line for line in lines(error))


def test_control_characters_of_a_run_do_not_reach_the_front_end() -> None:
    error = failed({0: payload("\x1b[31mValueError", "\x1b]8;;http://evil\x07bad\r\x1b[2J")})
    assert not any(c in "".join(lines(error)) for c in "\x1b\x07\r")


class Mine(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(code, why)

    def __str__(self) -> str:
        return f"{self.args[-1]}" if self.args else ""


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (payload("ZeroDivisionError", "division by zero"), ZeroDivisionError),
        (payload("KeyError", "'x'"), KeyError),
        (payload("UnicodeDecodeError", "cannot decode"), UnicodeDecodeError),
        (payload("Mine", "broken", module="__main__"), Mine),
        (payload("JSONDecodeError", "Expecting value", module="json.decoder"), errors.RunFailed),
        (payload("Unknown", "x", module="not.there"), errors.RunFailed),
        (payload("SystemExit", "1", cause="exit"), errors.RunFailed),
        (payload("RanksDiverged", "x", module="jupyter_train.errors"), errors.RanksDiverged),
        (payload("RankLost", "x", module="", cause="lost"), errors.RankLost),
        (payload("", "killed by signal 9", cause="signal"), errors.RankLost),
        (payload("RunTimeout", "x", module="", cause="timeout"), errors.RunTimeout),
    ],
)
def test_the_type_is_the_original_one_where_it_can_be(given: dict[str, Any], kind: type[Exception]) -> None:
    error = failed({0: given}, namespace={"Mine": Mine})
    if given["type"] == "JSONDecodeError":
        assert type(error).__name__ in {"JSONDecodeError", "RunFailed"}
    else:
        assert isinstance(error, kind)
        assert type(error).__name__ == kind.__name__
    assert given["message"] in str(error)


def test_the_object_that_came_back_is_raised_itself() -> None:
    mine = Mine(3, "broken")
    assert failed({0: payload("Mine", "broken", module="__main__")}, shipped=mine) is mine


def test_another_ranks_error_is_not_taken_for_that_of_rank_0() -> None:
    error = failed({0: payload("PeerLost", "x", secondary=True), 1: payload()}, shipped=OSError("x"))
    assert type(error) is ValueError


def test_out_of_memory_is_said_with_what_was_in_use() -> None:
    usage = {1: (UsageReading(time=1.0, cpu_cores=1.0, memory_bytes=3_200_000_000),)}
    message = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    error = failed({1: payload("RuntimeError", message)}, usage=usage)
    assert isinstance(error, RuntimeError)
    assert "out of memory: at most rank 1 3.2 GB were in use" in lines(error)
    assert "smaller batch" in lines(error)[-1]


def test_a_killed_process_may_have_been_out_of_memory() -> None:
    usage = {1: (UsageReading(time=1.0, cpu_cores=1.0, memory_bytes=3_200_000_000),)}
    killed = payload("RankLost", "the process of rank 1 was killed by SIGKILL", cause="signal", frames=[])
    error = failed({1: killed}, usage=usage)
    assert type(error) is errors.RankLost
    assert "perhaps out of memory: at most rank 1 3.2 GB were in use" in lines(error)


def test_a_reason_alone_is_enough() -> None:
    error = failed({}, reason="RunTimeout: the run took longer than the 5 s that --timeout allows")
    assert type(error) is errors.RunTimeout
    assert lines(error) == [f"RunTimeout: {error}"]


def test_a_lost_run_says_why() -> None:
    lost = RunView(run_id="r", state=RunState.LOST, reason="the controller on host fell silent")
    error = failed_run(lost, name="digits")
    assert type(error) is errors.RunFailed
    assert "fell silent" in str(error)


def test_the_exception_still_pickles() -> None:
    assert isinstance(pickle.loads(pickle.dumps(failed({0: payload()}))), ValueError)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_exception_that_cannot_be_shown_is_told_as_a_failed_run() -> None:
    payload_ = payload("Unspeakable", "<Unspeakable whose message cannot be shown>", module="__main__")
    for shipped in (Unspeakable(), None):
        error = failed({0: payload_}, shipped=shipped, namespace={"Unspeakable": Unspeakable})
        assert isinstance(error, (errors.RunFailed, Unspeakable))
        assert "cannot be shown" in str(error)  # the shell asks for it
        assert any(line.startswith("Unspeakable: ") for line in lines(error))


def test_a_group_of_exceptions_is_told_by_its_members() -> None:
    message = "many (2 sub-exceptions)\nValueError: a\nKeyError: 'b'"
    shipped = ExceptionGroup("many", [ValueError("a"), KeyError("b")])
    error = failed({0: payload("ExceptionGroup", message)}, shipped=shipped)
    assert type(error) is errors.RunFailed  # IPython shows groups without asking them
    assert lines(error)[-4:-1] == [
        "ExceptionGroup: many (2 sub-exceptions)",
        "ValueError: a",
        "KeyError: 'b'",
    ]


def test_leaving_with_a_code_does_not_leave_the_notebook() -> None:
    error = failed({0: payload("SystemExit", "3")})
    assert type(error) is errors.RunFailed
    assert "SystemExit: 3" in lines(error)


def test_a_cell_that_interrupts_itself_ends_as_a_plain_cell_does() -> None:
    error = failed({0: payload("KeyboardInterrupt", "")})
    assert type(error) is KeyboardInterrupt
    assert "KeyboardInterrupt" in lines(error)


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit("no")


@pytest.mark.parametrize(
    ("shipped", "message"), [(ValueError("x" * 30_000), "x" * 4_000), (Mute(), "<Mute>")]
)
def test_an_exception_that_a_front_end_cannot_show_is_made_anew(shipped: Exception, message: str) -> None:
    error = failed({0: payload(type(shipped).__name__, message, module=__name__)}, shipped=shipped)
    assert error is not shipped
    assert str(error).endswith(message)


def test_out_of_memory_says_what_is_held() -> None:
    error = failed({0: payload("MemoryError", "", memory="batch 25.0 MB, model 8.0 MB")})
    assert "held by the cell's names: batch 25.0 MB, model 8.0 MB" in lines(error)


def test_a_kill_that_had_nothing_to_do_with_memory_does_not_suggest_it() -> None:
    message = "the process of rank 1 was killed by SIGKILL, by itself or by another process: Linux did not do it for want of memory"
    error = failed({1: payload("RankLost", message, cause="signal", frames=[])})
    assert not [line for line in lines(error) if line.startswith("perhaps")]


def test_a_lost_run_says_what_to_do() -> None:
    lost = replace(view({}, reason="the controller on box fell silent"), state=RunState.LOST)
    error = failed_run(lost, name="digits")
    assert "fell silent" in lines(error)[0]
    assert "Run the cell again" in lines(error)[1]
    assert "%train log digits" in lines(error)[1]


def test_a_missing_module_is_named_with_the_worker_and_the_command_that_installs_it() -> None:
    missing = {"module": "torch", "python": "/far/bin/python"}
    place = ({"rank": 0, "worker": "tcp://a:1"}, {"rank": 1, "worker": "tcp://b:2"})
    same = payload(
        "CaptureError", "scaler needs the module torch", module="jupyter_train.errors", missing=missing
    )

    (*_, advice) = lines(failed({0: same, 1: same}, ranks=2, placement=place))

    version = metadata.version("torch").split("+")[0]
    assert "Worker tcp://a:1, tcp://b:2 has no torch" in advice
    assert f"/far/bin/python -m pip install torch=={version}" in advice
    assert "PipInstall" in advice


def test_a_module_that_is_nowhere_is_not_only_the_workers_lack() -> None:
    missing = {"module": "no_such_thing", "python": "/far/bin/python"}

    (*_, advice) = lines(failed({0: payload("ModuleNotFoundError", missing=missing)}))

    assert "No module no_such_thing is installed in the notebook's environment either" in advice
