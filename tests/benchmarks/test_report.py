"""The lines that other programs read keep their form."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import MEASURES, arguments, main
from benchmarks.report import row


def test_a_row_is_one_json_object_of_the_promised_form() -> None:
    line = row("log", "tensorboard", "call", "us", [1.0, 2.0, 3.0]).as_json()
    told = json.loads(line)
    assert list(told) == ["measure", "subject", "metric", "unit", "n", "median", "p95", "p99", "ci95"]
    assert (told["measure"], told["subject"], told["metric"], told["unit"]) == (
        "log",
        "tensorboard",
        "call",
        "us",
    )
    assert told["n"] == 3
    assert told["median"] == 2.0
    assert len(told["ci95"]) == 2
    assert "\n" not in line


def test_a_row_reads_as_one_line_too() -> None:
    text = row("start", "jupyter_train", "first_step", "s", [0.25]).as_text()
    assert "first_step" in text
    assert "0.25 s" in text
    assert "\n" not in text


def test_every_measure_can_be_asked_for() -> None:
    assert [arguments([name]).measure for name in MEASURES] == list(MEASURES)
    asked = arguments(["throughput", "--json", "--repeat", "3"])
    assert (asked.measure, asked.json, asked.repeat) == ("throughput", True, 3)
    assert (asked.model, asked.workers) == ("cnn", 0)
    assert arguments(["throughput", "--model", "mlp", "--workers", "2"]).model == "mlp"


def test_no_repetitions_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start", "--repeat", "0"]) == 2
    assert "--repeat" in capsys.readouterr().err
