"""``%%train`` in a shell: what a user sees from pressing run until the names are back."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jupyter_train import home
from jupyter_train.errors import (
    CaptureError,
    CellError,
    NotEnoughWorkers,
    RankLost,
    RunCancelled,
    RunNotFound,
    RunTimeout,
    StoreError,
)
from jupyter_train.notebook import api
from jupyter_train.record import Event, EventKind, RunSpec, RunState, unpack_event
from jupyter_train.store import JournalWriter
from tests.notebook.conftest import Shell
from tests.notebook.fakes import FakeConnection, FakeControl, FakeRun


def interrupt() -> None:
    """■: the signal reaches the cell's thread, as the kernel's does."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_a_cell_trains_and_its_names_are_in_the_notebook(shell: Shell, control: FakeControl) -> None:
    shell.run("%%train -n 3 --name digits -p lr=0.1 --seed 4\nanswer = train.params['lr']")
    assert shell.error is None
    assert shell.ip.user_ns["answer"] == 42
    spec = control.only.spec
    assert (spec.name, spec.ranks, spec.params, spec.seed, spec.first_line) == (
        "digits",
        3,
        {"lr": 0.1},
        4,
        2,
    )
    assert spec.source == "answer = train.params['lr']\n"


def test_without_n_there_is_one_rank_per_worker(
    shell: Shell, control: FakeControl, connection: FakeConnection
) -> None:
    control.workers = 5
    shell.run("%%train\npass")
    assert control.only.spec.ranks == 5
    assert connection.opened == [(None, None)]  # type: ignore[attr-defined]


def test_a_cluster_without_workers_is_an_error_that_says_so(shell: Shell, control: FakeControl) -> None:
    control.workers = 0
    shell.run("%%train\npass")
    assert isinstance(shell.error, NotEnoughWorkers)
    assert len(shell.traceback) == 1
    assert "-n N" in shell.traceback[0]


def test_the_view_is_one_display_that_ends_with_the_picture(shell: Shell) -> None:
    shell.run("%%train --name <b>digits</b>\npass")
    assert len(shell.ip.display_pub.ids) == 1
    assert shell.ip.display_pub.updates == [False, True]
    last = shell.shown[-1]
    assert set(last) == {"text/plain", "text/html", "image/png"}
    assert "SUCCEEDED" in last["text/plain"]
    assert "&lt;b&gt;digits&lt;/b&gt;" in last["text/html"]
    assert "<b>digits" not in last["text/html"]
    assert "data:image/png;base64," + last["image/png"] in last["text/html"]


def test_the_first_cell_says_that_a_cluster_starts_in_the_same_display(
    shell: Shell, control: FakeControl, connection: FakeConnection
) -> None:
    connection.is_alive = False
    shell.run("%%train --name digits\npass")
    assert "connecting to a cluster" in shell.shown[0]["text/plain"]
    assert "SUCCEEDED" in shell.shown[-1]["text/plain"]
    assert len(shell.ip.display_pub.ids) == 1
    control.workers = 0
    shell.run("%%train --name digits\npass")
    assert shell.shown[-1]["text/plain"] == "nothing was started"


def test_a_terminal_gets_text(shell: Shell) -> None:
    del shell.ip.kernel
    shell.run("%%train --name digits\npass")
    out = shell.capsys.readouterr().out
    assert "run digits" in out
    assert "✓ SUCCEEDED" in out
    assert not shell.shown


def test_prints_of_rank_0_are_the_cells(shell: Shell, control: FakeControl) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        run.prints("epoch 1\n")
        run.prints("not me\n", rank=1)
        run.prints("careful\n", stream="stderr")
        run.prints("a remark\n", stream="remark")
        run.end()

    control.script = script
    shell.run("%%train --name digits\npass")
    told = shell.capsys.readouterr()
    assert told.out == "epoch 1\n"
    assert told.err == "careful\n"
    assert "a remark" in shell.shown[-1]["text/plain"]
    shell.run("%train log digits")
    assert shell.capsys.readouterr().out.splitlines() == [
        "[0] epoch 1",
        "[1] not me",
        "[0] careful",
        "[0] a remark",
    ]
    shell.run("%train log digits --rank 1")
    assert shell.capsys.readouterr().out == "not me\n"


@pytest.mark.parametrize(
    "line", ["!pip install x", "x = !ls", "%time x = 1", "  %matplotlib inline", "print?"]
)
def test_a_line_for_ipython_is_refused_with_its_line_and_the_advice(
    shell: Shell, control: FakeControl, line: str
) -> None:
    shell.run(f"%%train\nif True:\n    pass\n{line}\n")
    assert isinstance(shell.error, CellError)
    assert "line 4" in shell.traceback[0]
    assert "Move it up" in shell.traceback[0]
    assert not control.runs


def test_a_syntax_error_has_the_cells_own_line_and_starts_nothing(
    shell: Shell, control: FakeControl, connection: FakeConnection
) -> None:
    shell.run("%%train\nx = 1\nfor = 2\n")
    assert isinstance(shell.error, SyntaxError)
    assert shell.error.lineno == 3
    assert shell.traceback[0].strip() == "Cell In[2], line 3"
    assert [line.strip() for line in shell.traceback[1:]] == ["for = 2", "^", "SyntaxError: invalid syntax"]
    assert not connection.opened  # type: ignore[attr-defined]


def test_a_name_that_is_nowhere_is_a_name_error_before_anything_starts(
    shell: Shell, control: FakeControl, connection: FakeConnection
) -> None:
    shell.run("model = 1")
    shell.run("%%train\nx = model\ny = modle + np.pi\n")
    assert isinstance(shell.error, NameError)
    assert str(shell.error) == "name 'modle' is not defined"
    assert shell.traceback == [
        "NameError in the cell; nothing was started",
        "Cell In[3], line 3",
        "----> 3 y = modle + np.pi",
        "NameError: name 'modle' is not defined",
        "also not defined: np (line 3). Add  import numpy as np",
        "→ Did you mean 'model'?",
    ]
    assert not connection.opened  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("above", "line", "advice"),
    [
        ("# train it\n", 2, "Move the comment below it."),
        ("# train it\n\n# well\n", 4, "Move the comment below it."),
        ("x = 1\n", 2, "Move what is above it into a cell of its own."),
        ("!pip install x\n", 2, "Move what is above it into a cell of its own."),
    ],
)
def test_the_magic_below_other_lines_is_refused_with_what_to_do(
    shell: Shell, control: FakeControl, above: str, line: int, advice: str
) -> None:
    shell.run(f"{above}%%train -n 2\ny = 2\n")
    assert isinstance(shell.error, CellError)
    assert shell.traceback == [
        f"CellError: line {line}: %%train has to be the first line of its cell. {advice}"
    ]
    assert not control.runs


def test_the_magic_in_a_text_is_text(shell: Shell, control: FakeControl) -> None:
    shell.run("text = '''\n%%train\n'''\n")
    assert shell.error is None
    assert not control.runs


def test_blank_lines_above_the_magic_are_fine(shell: Shell, control: FakeControl) -> None:
    shell.run("\n\n%%train\nanswer = 1\n")
    assert shell.error is None
    assert control.only.spec.first_line == 2


def test_lines_are_counted_below_another_magic(shell: Shell, control: FakeControl) -> None:
    shell.ip.run_cell("%%time\n%%train\n\nanswer = 1\n", store_history=True)
    assert control.only.spec.first_line == 3


def test_a_cell_of_many_megabytes_is_refused_before_anything_starts(
    shell: Shell, control: FakeControl
) -> None:
    shell.run(f"%%train\ntext = '{'x' * (9 << 20)}'\n")
    assert isinstance(shell.error, CellError)
    assert "assign the long text in a cell above" in shell.traceback[0]
    assert not control.runs


def test_an_empty_cell_is_refused(shell: Shell, control: FakeControl) -> None:
    shell.run("%%train\n# nothing yet\n")
    assert isinstance(shell.error, CellError)
    assert not control.runs


def test_an_error_is_the_users_own_with_line_source_and_type(shell: Shell, control: FakeControl) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        for rank in range(4):
            run.error(rank, "ZeroDivisionError", "division by zero")
        run.bring(half=1)
        run.end("FAILED", reason="rank 0 failed: ZeroDivisionError: division by zero")

    control.script = script
    shell.run("%%train -n 4 --name digits\n1 / 0\n")
    assert isinstance(shell.error, ZeroDivisionError)
    assert shell.traceback == [
        "ZeroDivisionError in ranks 0–3 of 4, run digits",
        "Cell In[2], line 2",
        "----> 2 1 / 0",
        "ZeroDivisionError: division by zero",
        "shown is rank 0; ranks 1–3: the same",
        "→ %train log digits --rank 0  shows everything that was written.",
    ]
    assert shell.ip.user_ns["half"] == 1  # as in a plain cell that fails half way


def test_the_exception_object_of_rank_0_is_the_one_that_is_raised(shell: Shell, control: FakeControl) -> None:
    raised = ValueError("bad", {"batch": 3})

    def script(run: FakeRun) -> None:
        run.begin()
        run.error(0, "ValueError", str(raised))
        run.bring(_error=raised)
        run.end("FAILED")

    control.script = script
    shell.run("%%train\nint('x')\n")
    assert isinstance(shell.error, ValueError)
    assert shell.error.args == raised.args


def test_a_lost_worker_is_named(shell: Shell, control: FakeControl) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        run.error(
            1, "RankLost", "rank 1 died: killed by SIGKILL on worker w1", module="", cause="signal", frames=[]
        )
        run.end("FAILED", reason="RankLost: rank 1 died")

    control.script = script
    shell.run("%%train --name digits\npass\n")
    assert isinstance(shell.error, RankLost)
    assert any("worker w1" in line for line in shell.traceback)


def test_a_time_out_is_run_timeout(shell: Shell, control: FakeControl) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        run.end("FAILED", reason="RunTimeout: the run took longer than the 5 s that --timeout allows")

    control.script = script
    shell.run("%%train --timeout 5s\npass\n")
    assert isinstance(shell.error, RunTimeout)
    assert "longer than the 5 s" in str(shell.error)
    assert control.only.spec.timeout_s == 5.0


def test_a_run_stopped_from_elsewhere_ends_the_cell_with_an_error(shell: Shell, control: FakeControl) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        run.state("STOPPING")
        run.end("CANCELLED", reason="stopped by hand")

    control.script = script
    shell.run("%%train --name digits\npass\n")
    assert isinstance(shell.error, RunCancelled)
    assert "stopped by hand" in str(shell.error)


def test_an_interrupt_stops_the_run_brings_names_in_and_ends_the_cell(
    shell: Shell, control: FakeControl
) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        assert run.watched.wait(10)
        interrupt()
        assert run.stopped.wait(10)
        run.state("STOPPING")
        run.bring(answer=7)
        run.end("CANCELLED")

    control.script, control.on_thread = script, True
    shell.run("%%train --name digits\npass\n")
    assert isinstance(shell.error, KeyboardInterrupt)
    assert shell.ip.user_ns["answer"] == 7
    assert [force for force, _ in control.only.stops] == [False]
    assert shell.traceback[0].startswith("KeyboardInterrupt: run digits was stopped")


def test_a_kernel_that_is_restarted_leaves_its_run_going_on(shell: Shell, control: FakeControl) -> None:
    let_go = threading.Event()

    def script(run: FakeRun) -> None:
        run.begin()
        assert run.watched.wait(10)
        interrupt()  # as Jupyter's servers do before they ask a kernel to end
        shell.ip.exit_now = True
        assert let_go.wait(10)
        run.end()

    control.script, control.on_thread = script, True
    shell.run("%%train --name digits\npass\n")
    let_go.set()
    assert isinstance(shell.error, KeyboardInterrupt)
    assert control.only.stops == []
    assert "digits goes on without this kernel: %train attach digits" in shell.traceback[0]
    assert "goes on without this kernel" in shell.shown[-1]["text/plain"]


def test_a_second_interrupt_kills(shell: Shell, control: FakeControl) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        assert run.watched.wait(10)
        interrupt()
        assert run.stopped.wait(10)
        interrupt()
        assert run.killed.wait(10)
        run.state("STOPPING")
        run.end("CANCELLED")

    control.script, control.on_thread = script, True
    shell.run("%%train\npass\n")
    assert isinstance(shell.error, KeyboardInterrupt)
    assert [force for force, _ in control.only.stops] == [False, True]


def test_a_third_interrupt_lets_go_of_a_cluster_that_does_not_answer(
    shell: Shell, control: FakeControl
) -> None:
    let_go = threading.Event()

    def script(run: FakeRun) -> None:
        run.begin()
        assert run.watched.wait(10)
        interrupt()
        assert run.stopped.wait(10)
        interrupt()
        assert run.killed.wait(10)
        interrupt()
        assert let_go.wait(10)
        run.state("STOPPING")
        run.end("CANCELLED")

    control.script, control.on_thread = script, True
    shell.run("%%train\npass\n")
    let_go.set()
    assert isinstance(shell.error, KeyboardInterrupt)
    assert "%train stop" in shell.traceback[0]


def test_bg_returns_at_once_and_wait_brings_the_names_in(shell: Shell, control: FakeControl) -> None:
    go_on = threading.Event()

    def script(run: FakeRun) -> None:
        run.begin()
        assert go_on.wait(10)
        run.metrics(loss=[1.0])
        run.bring(answer=3)
        run.end()

    control.script, control.on_thread = script, True
    shell.run("%%train --bg --name digits\npass\n")
    assert shell.error is None
    assert "answer" not in shell.ip.user_ns
    assert "%train wait digits brings its names in" in shell.shown[-1]["text/plain"]
    go_on.set()
    shell.run("%train wait digits")
    assert shell.error is None
    assert shell.ip.user_ns["answer"] == 3
    assert "SUCCEEDED" in shell.shown[-1]["text/plain"]
    assert "%train wait" not in shell.shown[-1]["text/plain"], "they are in"
    assert len(shell.ip.display_pub.ids) == 1


def test_the_handle_tells_state_metrics_parameters_log_and_result(shell: Shell, control: FakeControl) -> None:
    shell.run("%%train --name digits -p lr=0.1\npass\n")
    run = api.run("last")
    assert run.name == "digits"
    assert run.state is RunState.SUCCEEDED
    assert run.params == {"lr": 0.1}
    assert run.metrics["loss"].tolist() == [1.0, 0.5]
    assert run.metrics.index.tolist() == [1, 2]
    assert run.result() == {"answer": 42}
    assert run.result("answer") == 42
    with pytest.raises(KeyError, match="answer"):
        run.result("df")
    assert run.wait() is run
    assert api.run(run.id[:18]) is run or api.run(run.id) is run


def test_stop_asks_the_controller_and_waits_for_the_end(shell: Shell, control: FakeControl) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        assert run.stopped.wait(10)
        run.state("STOPPING")
        run.end("CANCELLED")

    control.script, control.on_thread = script, True
    shell.run("%%train --bg --name digits\npass\n")
    shell.run("%train stop digits")
    assert control.only.stops == [(False, "stopped by hand")]
    assert "CANCELLED" in shell.capsys.readouterr().out


def test_attach_shows_the_run_again_in_a_new_display(shell: Shell) -> None:
    shell.run("%%train --name digits\npass\n")
    before = len(shell.ip.display_pub.ids)
    shell.run("%train attach digits")
    api.run("digits").follow().join(10)
    assert len(shell.ip.display_pub.ids) == before + 1
    assert "SUCCEEDED" in shell.shown[-1]["text/plain"]


def test_an_unknown_option_names_the_nearest(shell: Shell, control: FakeControl) -> None:
    shell.run("%%train --nmae digits\npass\n")
    assert "did you mean --name?" in str(shell.error)
    assert not control.runs


def test_the_overview_shows_cluster_and_runs(shell: Shell) -> None:
    shell.run("%train")
    out = shell.capsys.readouterr().out
    assert "fake" in out
    assert "2, 0 busy" in out
    assert "no runs yet" in out


def test_cluster_commands_reach_the_cluster(shell: Shell, connection: FakeConnection) -> None:
    shell.run("%train cluster start local -n 4 --idle-timeout 10m")
    shell.run("%train cluster scale 3")
    assert connection.scaled == [4, 3]
    shell.run("%train cluster use fake")
    shell.run("%train cluster list")
    shell.run("%train cluster stop")
    out = shell.capsys.readouterr().out
    assert "cluster fake at tls://127.0.0.1:1: 3 workers" in out
    assert "cluster fake has ended" in out
    assert shell.error is None


def test_help_lists_every_option(shell: Shell) -> None:
    told: dict[str, Any] = shell.ip.object_inspect("%%train")
    assert "--timeout 2h" in told["docstring"]


@pytest.mark.parametrize("ref", ['""', "20"])
def test_what_may_mean_several_runs_stops_none(shell: Shell, control: FakeControl, ref: str) -> None:
    with closing(JournalWriter(home.journals_folder() / "elsewhere.sqlite")) as journal:
        for number in range(2):
            spec = RunSpec(run_id=f"20261122-15300{number}-ab12cd", name="old", source="pass", ranks=1)
            payload = {"state": "PENDING", "spec": spec.to_dict(for_journal=True)}
            event = Event(run_id=spec.run_id, seq=1, time=1.0, kind=EventKind.STATE, payload=payload)
            journal.append(spec.run_id, [event])
        assert journal.flush(5)

    def script(run: FakeRun) -> None:
        run.begin()
        run.stopped.wait(0.5)
        run.end()

    control.script, control.on_thread = script, True
    shell.run("%%train --bg --name digits\npass\n")
    shell.run(f"%train stop {ref}")
    assert isinstance(shell.error, RunNotFound)
    assert control.only.stops == []


def test_a_disk_that_refuses_what_the_cell_reads_is_named_with_what_to_do(
    shell: Shell, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys.modules["jupyter_train.transport.capture"], "capture", full)
    shell.run("%%train\npass\n")
    assert isinstance(shell.error, CaptureError)
    assert len(shell.traceback) == 1
    for said in (str(home.content_folder()), "No space left", "JUPYTER_TRAIN_HOME"):
        assert said in shell.traceback[0]
    assert not control.runs


def test_a_home_that_cannot_be_is_said_before_anything_starts(
    shell: Shell,
    control: FakeControl,
    connection: FakeConnection,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JUPYTER_TRAIN_HOME", str(tmp_path / "file"))
    shell.run("%%train\npass\n")
    assert isinstance(shell.error, StoreError)
    assert len(shell.traceback) == 1
    assert str(tmp_path / "file") in shell.traceback[0]
    assert not connection.opened  # type: ignore[attr-defined]


def test_a_journal_that_cannot_be_read_is_named_below_the_runs(shell: Shell) -> None:
    damaged = home.private_folder(home.journals_folder()) / "damaged.sqlite"
    damaged.write_bytes(b"no database" * 1000)
    for line in ("%train", "%train runs"):
        shell.run(line)
        result = repr(shell.result.result) if shell.result.result is not None else ""
        assert str(damaged) in shell.capsys.readouterr().out + result


def test_a_run_that_has_ended_here_is_not_shown_as_going_on(shell: Shell, control: FakeControl) -> None:
    def script(run: FakeRun) -> None:
        run.begin()
        with closing(JournalWriter(home.private_folder(home.journals_folder()) / "slow.sqlite")) as journal:
            journal.append(run.spec.run_id, [unpack_event(run.packed[0])])  # the rest is still on its way
            assert journal.flush(5)
        run.end()

    control.script = script
    shell.run("%%train --name digits\npass\n")
    (shown,) = api.runs()
    assert shown.state is RunState.SUCCEEDED
    assert shown.ended is not None


def test_scaling_down_says_what_is_still_to_go(
    shell: Shell, connection: FakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.remarks = ["4 ranks share the 2 cores of this machine"]
    monkeypatch.setattr(connection, "scale", lambda n: None)  # the workers take their time
    shell.run("%train cluster scale 1")
    out = shell.capsys.readouterr().out
    assert "1 of them stay" in out
    assert "4 ranks" not in out
