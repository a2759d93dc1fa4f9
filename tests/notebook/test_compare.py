"""Two runs side by side."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jupyter_train as jt
from jupyter_train.notebook.comparing import best_of
from jupyter_train.notebook.comparison import Comparison
from jupyter_train.notebook.drawing import MAX_BYTES
from jupyter_train.record import Curve, RunSpec, RunState, RunView
from tests.notebook.conftest import Shell
from tests.notebook.fakes import FakeControl, FakeRun

IDS = ("20261122-153000-ab12cd", "20261122-160000-cd34ef")
HOSTILE = '<img src=x onerror="alert(1)">\x1b[31m'


def view(
    number: int, curves: dict[str, list[float]] | None = None, source: str = "x = 1", **spec: Any
) -> RunView:
    made = RunSpec(run_id=IDS[number], name=spec.pop("name", f"run {number}"), source=source, **{"ranks": 2, **spec})  # fmt: skip
    drawn = {
        name: {0: Curve().extended(np.arange(1, len(values) + 1), np.array(values, np.float64))}
        for name, values in (curves or {}).items()
    }
    return RunView(
        run_id=IDS[number],
        spec=made,
        curves=drawn,
        state=RunState.SUCCEEDED,
        changes=((100.0, RunState.PENDING), (101.0, RunState.RUNNING), (161.0, RunState.SUCCEEDED)),
    )


def compared(left: RunView, right: RunView) -> Comparison:
    names = [one.spec.name if one.spec is not None else one.run_id for one in (left, right)]
    return Comparison((left, right), (names[0], names[1]), now=200.0)


def test_newest_and_best_values_stand_beside_each_other() -> None:
    both = compared(view(0, {"loss": [3.0, 1.0, 2.0], "accuracy": [0.5, 0.9, 0.8]}), view(1, {"loss": [4.0]}))
    text = repr(both)
    assert "2 (best 1 at step 2)" in text
    assert "4 (best 4 at step 1)" in text
    assert "0.8 (best 0.9 at step 2)" in text
    assert [one.name for one in both.values] == ["loss", "accuracy"], "what both have comes first"
    assert both.values[1].last == (0.8, None)


@pytest.mark.parametrize(
    ("name", "values", "best"),
    [
        ("val_loss", [2.0, 1.0, 1.0, 3.0], (1.0, 2)),
        ("val_acc", [0.1, 0.7, 0.2], (0.7, 2)),
        ("map", [0.1, 0.7], (0.7, 2)),
        ("mape", [0.1, 0.7], (0.1, 1)),
        ("f1/dev", [0.1, 0.7], (0.7, 2)),
        ("loss", [math.nan, 2.0, math.inf], (2.0, 2)),
        ("accuracy", [math.nan, 0.2, math.inf], (0.2, 2)),
        ("loss", [math.nan], None),
        ("loss", [], None),
        ("lr", [0.1, 0.01], None),
        ("lr/head", [0.1, 0.01], None),
    ],
)
def test_the_name_says_what_is_best(name: str, values: list[float], best: tuple[float, int] | None) -> None:
    found = best_of(name, np.arange(1, len(values) + 1), np.array(values, np.float64))
    assert (found and (found.value, found.step)) == best


def test_only_settings_that_differ_are_listed() -> None:
    provenance = {"git": {"commit": "abc", "dirty": False}, "versions": {"torch": "2.6"}}
    left = view(0, params={"lr": 0.1, "depth": 2}, seed=1, provenance=provenance)
    right = view(1, params={"lr": 0.2, "width": 3}, seed=1, ranks=4, provenance={**provenance, "versions": {"torch": "2.7"}})  # fmt: skip
    found = {one.name: one.values for one in compared(left, right).settings}
    assert found == {
        "params.lr": ("0.1", "0.2"),
        "params.depth": ("2", ""),
        "params.width": ("", "3"),
        "ranks": ("2", "4"),
        "versions.torch": ("2.6", "2.7"),
    }


def test_code_is_compared_line_by_line_and_its_indentation_kept() -> None:
    taken = {"definitions": {"fit": "def fit():\n    return 1", "same": "def same(): ..."}}
    changed = {"definitions": {"fit": "def fit():\n    return 2", "same": "def same(): ..."}}
    left = view(0, source="for x in y:\n    a(x)\n", provenance=taken)
    right = view(1, source="for x in y:\n    b(x)\n", provenance=changed)
    text = repr(compared(left, right))
    for line in (
        "-    a(x)",
        "+    b(x)",
        "-    return 1",
        "+    return 2",
        "--- cell of run 0",
        "+++ fit of run 1",
    ):
        assert line in text.splitlines()
    assert "def same" not in text


def test_equal_code_is_said_to_be() -> None:
    both = compared(view(0), view(1))
    assert both.code == ""
    assert "the code is the same" in repr(both)
    assert "the code is the same" in both._repr_mimebundle_()["text/html"]


def test_runs_of_one_name_are_told_apart_by_their_ids() -> None:
    both = compared(view(0, name="digits"), view(1, name="digits"))
    assert both.names == (f"digits ({IDS[0]})", f"digits ({IDS[1]})")


def test_nothing_of_a_run_is_interpreted() -> None:
    provenance = {"git": HOSTILE, "versions": {HOSTILE: HOSTILE}, "definitions": {HOSTILE: HOSTILE}}
    left = view(0, {HOSTILE: [1.0]}, HOSTILE, name=HOSTILE, params={"a": HOSTILE}, provenance=provenance)
    bundle = compared(left, view(1, {HOSTILE: [2.0]}))._repr_mimebundle_()
    assert "<img src=x" not in bundle["text/html"]
    assert 'onerror="' not in bundle["text/html"]
    assert "\x1b" not in bundle["text/html"] + bundle["text/plain"]


def test_what_is_not_as_recorded_by_us_is_passed_over() -> None:
    odd = view(0, provenance={"git": [1], "versions": None, "definitions": 3})
    assert compared(odd, RunView(run_id=IDS[1]))._repr_mimebundle_()["text/plain"]


def test_a_picture_of_many_noisy_curves_is_small() -> None:
    rng = np.random.default_rng(0)
    curves = [{f"metric {n}": rng.random(3000).tolist() for n in range(8)} for _ in range(2)]
    png = compared(view(0, curves[0]), view(1, curves[1]))._repr_mimebundle_()["image/png"]
    assert len(png) <= MAX_BYTES


def test_curves_lie_over_each_other_in_colours_for_both_themes() -> None:
    falls = [[1.0 / step for step in range(1, 50)], [2.0 / step for step in range(1, 90)]]
    png = compared(view(0, {"loss": falls[0]}), view(1, {"loss": falls[1]}))._repr_mimebundle_()["image/png"]
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    colours = {pixel[:3] for _, pixel in image.getcolors(2**24) if pixel[3] > 200}
    assert any(blue > 200 and red < 80 for red, _, blue in colours), "the first run's line"
    assert any(red > 190 and blue < 60 for red, _, blue in colours), "the second run's line"
    assert image.getpixel((0, 0))[3] == 0, "transparent"


@pytest.mark.parametrize(
    "values", [[], [math.nan], [1.0], [0.0, 0.0], [1e300, -1e300], [1e-9, 1.0, math.inf]]
)
def test_any_values_can_be_drawn(values: list[float]) -> None:
    bundle = compared(view(0, {"loss": values}), view(1, {"loss": [1.0, 2.0]}))._repr_mimebundle_()
    assert bundle["image/png"]


def test_without_curves_there_is_no_picture() -> None:
    assert "image/png" not in compared(view(0), view(1))._repr_mimebundle_()


def test_values_of_both_are_a_frame() -> None:
    frame = compared(view(0, {"loss": [3.0, 1.0]}), view(1, {"loss": [4.0], "acc": [0.5]})).to_frame()
    assert frame["loss", "run 0"].tolist() == [3.0, 1.0]
    assert frame["loss", "run 1"].tolist() == pytest.approx([4.0, math.nan], nan_ok=True)
    assert frame["acc"].columns.tolist() == ["run 1"]


def trains(*losses: float) -> Any:
    def script(run: FakeRun) -> None:
        run.begin()
        run.metrics(0, loss=list(losses))
        run.end()

    return script


def test_the_magic_and_the_function_compare_runs_by_what_people_call_them(
    shell: Shell, control: FakeControl
) -> None:
    control.script = trains(1.0, 0.5)
    shell.run("%%train -n 1 --name first -p lr=0.1\nx = 1")
    control.script = trains(1.0, 0.25)
    shell.run("%%train -n 1 --name second -p lr=0.2\nx = 2")
    shell.run("found = %train compare first last")
    assert shell.error is None
    found = shell.ip.user_ns["found"]
    assert found.names == ("first", "second")
    assert [one.name for one in found.settings] == ["params.lr"]
    assert "-x = 1" in found.code
    assert repr(jt.compare("first", jt.run("second"))) == repr(found)
    shell.run("%train compare first thrid")
    assert "no run 'thrid'" in str(shell.error)
