"""The texts that ranks run are valid, and both sides run the same loop."""

from __future__ import annotations

import ast
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import attach, capture, log, recovery, start, throughput
from benchmarks.models import MODELS
from jupyter_train.notebook.bundle import make_bundle
from jupyter_train.record import RunState, fold


@pytest.mark.parametrize("name", MODELS)
def test_both_sides_of_throughput_run_the_same_loop(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    loop = throughput.loop(model, tmp_path / "s.json")
    for text in (
        throughput.our_setup(model, 2) + loop,
        throughput.their_script(model, 2, tmp_path / "s.json"),
    ):
        ast.parse(text)
        assert loop in text
        assert "num_workers=2" in text
    assert f", {model.warm_steps}, {model.warm_steps + model.steps})" in loop


@pytest.mark.parametrize("name", MODELS)
def test_throughput_has_epochs_for_all_its_steps_and_hardly_more(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    loop = throughput.loop(model, tmp_path / "s.json")
    epochs = next(line for line in loop.splitlines() if line.startswith("for epoch"))
    steps = int(epochs.partition("range(")[2].partition(")")[0]) * (model.samples // model.batch)
    last = model.warm_steps + model.steps
    assert last <= steps < 1.1 * last


def test_the_texts_of_start_and_log_are_valid() -> None:
    loop = start._LOOP.format(folder="/tmp/x")
    ast.parse(start._SETUP + start._OURS_SETUP + loop)
    ast.parse(start._SETUP + start._THEIRS_SETUP + loop + start._THEIRS_END)
    ast.parse(log._WORK + log._OURS.format(file="f", calls=1, paced=1))
    ast.parse(log._WORK + log._TENSORBOARD.format(folder="d", file="f", calls=1, paced=1))


def test_the_texts_of_capture_are_valid() -> None:
    for text in (capture._SETUP, capture._START.format(reads="x"), capture._MEMORY, capture._PEER):
        ast.parse(text.partition("\n")[2] if text.startswith("%%") else text)


def test_the_last_rank_ends_the_clock_of_start(tmp_path: Path) -> None:
    (tmp_path / "rank-0").write_text("100.5")
    (tmp_path / "rank-1").write_text("101.25")
    assert start.last_first_step(tmp_path) == 101.25
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_wrote_nothing_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start.last_first_step(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_tensorboard_is_measured_call_by_call(tmp_path: Path) -> None:
    costs = log.theirs(tmp_path, 20, 3)
    assert {metric: len(values) for metric, values in costs.items()} == {"call": 20, "call_paced": 3}
    assert min(costs["call"]) > 0


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(sys.platform != "linux", reason="reads CPU seconds from /proc")
def test_torchrun_is_measured_with_all_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = tmp_path / "others"
    others.mkdir()
    monkeypatch.setenv("TMPDIR", str(others))
    short = replace(MODELS["cnn"], warm_steps=5, steps=60)
    stretch = throughput.theirs(tmp_path, short, 0)
    assert not list(others.glob("torchelastic*"))
    assert stretch.steps == 60
    assert stretch.processes >= 3
    assert stretch.cpu_s > 0


def test_the_long_run_of_attach_is_one_that_goes_on_at_its_last_step() -> None:
    view = fold(attach.history(steps=60))
    assert view.state is RunState.RUNNING
    assert {name: set(of_ranks) for name, of_ranks in view.curves.items()} == {name: {0, 1} for name in attach.METRICS}  # fmt: skip
    assert view.curves["loss"][1].steps.tolist() == list(range(1, 61))
    bundle = make_bundle(view, name="long", now=time.time())
    assert not attach.shows_all(bundle, 60), "without a picture it is not all"
    assert attach.shows_all({**bundle, "image/png": ""}, 60)


def test_the_texts_of_recovery_are_valid_and_both_sides_take_the_same_steps() -> None:
    given = {"name": "n", "folder": "/tmp/x", "epochs": 3, "pause": 0.01}
    ours = recovery._OURS.format(**given)
    theirs = (recovery._MODEL + recovery._THEIRS).format(samples=32, **given)
    ast.parse(recovery._MODEL.format(samples=32) + recovery._OURS_SETUP + ours.partition("\n")[2])
    ast.parse(theirs)
    step = recovery._STEP.format(**given)
    assert step in ours
    assert step in theirs


def test_a_run_trains_again_once_each_rank_has_done_a_step_by_a_new_process() -> None:
    done = [[(1, 10.0), (3, 20.0), (3, 21.0)], [(2, 10.0)]]
    assert recovery.trains_again({1, 2}, done) is None
    done[1] += [(4, 20.5), (4, 21.5)]
    assert recovery.trains_again({1, 2}, done) == 20.5
