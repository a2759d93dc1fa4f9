"""``--resume``: which checkpoint of which run a new one begins from."""

from __future__ import annotations

import dask
import pytest

import jupyter_train as jt
from jupyter_train import home
from jupyter_train.errors import RunError, TrainError
from jupyter_train.notebook.resuming import chosen
from jupyter_train.notebook.words import Resume
from jupyter_train.record import Checkpoint, EventKind, Gathered, RunView
from tests.notebook.conftest import Shell
from tests.notebook.fakes import FakeControl, FakeRun, succeed

RUN = "20261122-153000-ab12cd"


def kept(number: int, step: int, attempt: int = 1, epoch: int | None = 0) -> Checkpoint:
    return Checkpoint(
        attempt=attempt,
        number=number,
        step=step,
        epoch=epoch,
        files=(f"checkpoint-{attempt}-{number}.pt",),
        workers=("w0",),
    )


def view(*checkpoints: Checkpoint) -> RunView:
    return RunView(run_id=RUN, gathered=Gathered({}, checkpoints))


def test_without_a_step_the_newest_is_meant() -> None:
    found = chosen(view(kept(1, 100), kept(2, 200)), Resume(run="r"), name="r")
    assert found.number == 2


def test_of_several_at_one_step_the_newest_is_meant() -> None:
    found = chosen(view(kept(1, 100), kept(2, 200), kept(3, 200, 2)), Resume(run="r", step=200), name="r")
    assert found.number == 3


def test_a_step_without_a_checkpoint_is_told_the_nearest() -> None:
    with pytest.raises(
        RunError, match=r"of step 160; the nearest is  --resume r@200\.  It has steps 100, 200"
    ):
        chosen(view(kept(1, 100), kept(2, 200)), Resume(run="r", step=160), name="r")


def test_a_run_that_kept_none_says_how_some_are_kept() -> None:
    with pytest.raises(RunError, match=r"has no checkpoint to resume from.*train\.checkpoint.*train\.epochs"):
        chosen(view(), Resume(run="r"), name="r")


def test_checkpoints_outside_of_the_epochs_cannot_be_gone_on_from_and_it_says_how_they_are_read() -> None:
    with pytest.raises(RunError, match=r"outside of a loop over  train\.epochs.*\.load\(\)"):
        chosen(view(kept(1, 100, epoch=None)), Resume(run="r"), name="r")
    assert chosen(view(kept(1, 100), kept(2, 200, epoch=None)), Resume(run="r"), name="r").number == 1


def keeps(run: FakeRun) -> None:
    """The script of a run of two ranks whose first checkpoint is whole and whose second is not."""
    run.begin()
    folder = home.private_folder(home.run_folder(run.spec.run_id))
    for number, rank, file in ((1, 0, "checkpoint-1-1.pt"), (1, 1, "checkpoint-1-1.1.pt"), (2, 0, "checkpoint-1-2.pt")):  # fmt: skip
        (folder / file).write_bytes(b"state")
        told = {"number": number, "step": 10 * number, "epoch": 0, "file": file, "size_bytes": 5, "worker": f"w{rank}"}  # fmt: skip
        run.say(EventKind.CHECKPOINT, told, rank)
    run.end("FAILED", reason="rank 1 was killed")


def test_a_resumed_run_is_told_where_it_begins(shell: Shell, control: FakeControl) -> None:
    control.workers = 4
    control.script = keeps
    shell.run("%%train -n 2 --name first\nx = 1")
    shell.run("%%train --name second --resume first --retries 2 --checkpoint-every 5s\nx = 1")
    first, second = control.runs.values()
    point = second.spec.resume
    assert point is not None
    assert (point.run_id, point.number, point.step) == (first.spec.run_id, 1, 10)
    assert point.files == ("checkpoint-1-1.pt", "checkpoint-1-1.1.pt")
    assert (second.spec.retries, second.spec.checkpoint_every_s) == (2, 5.0)
    assert second.spec.ranks == 2  # as many as wrote it, where the line names no number


def test_nothing_starts_without_the_checkpoint(shell: Shell, control: FakeControl) -> None:
    control.script = keeps
    shell.run("%%train -n 2 --name first\nx = 1")
    shell.run("%%train --resume first@20\nx = 1")
    assert "nearest is  --resume first@10" in str(shell.error)
    (home.run_folder(control.only.spec.run_id) / "checkpoint-1-1.1.pt").unlink()
    shell.run("%%train --resume first\nx = 1")
    assert "checkpoint-1-1.1.pt is not in" in str(shell.error)
    shell.run("%%train --resume frist\nx = 1")
    assert "no run 'frist'" in str(shell.error)
    assert len(control.runs) == 1


def test_a_function_is_resumed_by_its_run(shell: Shell, control: FakeControl) -> None:
    def fit() -> None: ...

    control.script = keeps
    first = jt.submit(fit, ranks=2, retries=1, checkpoint_every="20s")
    first.follow().done.wait(10)
    jt.submit(fit, ranks=2, resume=first)
    jt.submit(fit, ranks=2, resume=f"{first.id}@10")
    jt.submit(fit, ranks=2, resume=first.checkpoints[0])
    specs = [run.spec for run in control.runs.values()]
    assert (specs[0].retries, specs[0].checkpoint_every_s) == (1, 20.0)
    assert [spec.resume and spec.resume.number for spec in specs] == [None, 1, 1, 1]


def test_defaults_are_dasks_configuration(shell: Shell, control: FakeControl) -> None:
    given = {"jupyter-train": {"retries": 3, "checkpoint-every": "1m", "hang-timeout": "1h"}}
    with dask.config.set(given):
        shell.run("%%train -n 1\nx = 1")
        shell.run("%%train -n 1 --retries 0 --checkpoint-every 2s\nx = 1")
    specs = [run.spec for run in control.runs.values()]
    assert [(s.retries, s.checkpoint_every_s, s.hang_timeout_s) for s in specs] == [(3, 60.0, 3600.0), (0, 2.0, 3600.0)]  # fmt: skip


def test_a_wrong_setting_starts_nothing(shell: Shell, control: FakeControl) -> None:
    with dask.config.set({"jupyter-train.retries": "lots"}):
        shell.run("%%train -n 1\nx = 1")
    assert isinstance(shell.error, TrainError)
    assert not control.runs


def test_another_number_of_ranks_is_remarked(shell: Shell, control: FakeControl) -> None:
    control.script = keeps
    shell.run("%%train -n 2 --name first\nx = 1")
    control.script = succeed
    shell.run("%%train -n 1 --resume first\nx = 1")
    assert shell.error is None
    assert "written by 2 ranks, and this run has 1" in shell.shown[-1]["text/plain"]
    shell.run("%%train -n 2 --resume first\nx = 1")
    assert "written by" not in shell.shown[-1]["text/plain"]
