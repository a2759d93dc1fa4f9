"""Kernel and workers of different environments: named before anything is sent."""

from __future__ import annotations

import pytest

from jupyter_train.cluster.environment import comparable, differences, here, sentence, table

OURS = {"python": "3.11", "torch": "2.13", "jupyter_train": "0.1"}


def test_the_same_is_no_difference() -> None:
    assert differences(OURS, {"scheduler": OURS, "tcp://a:1": OURS}) == []


def test_a_difference_names_package_versions_and_worker() -> None:
    found = differences(OURS, {"tcp://a:1": {**OURS, "torch": "2.9"}, "tcp://b:1": OURS})
    told = sentence(found, name="lab")
    assert told.startswith("the workers of lab have torch 2.9, and this kernel has 2.13.")
    assert table(found).splitlines()[1].split() == ["torch", "2.13", "2.9", "tcp://a:1"]


def test_a_package_that_is_missing_there_is_to_be_installed() -> None:
    told = sentence(differences(OURS, {"tcp://a:1": {**OURS, "jupyter_train": ""}}), name="lab")
    assert "have no jupyter_train" in told
    assert "Install it there" in told


def test_a_scheduler_needs_no_torch_but_jupyter_train() -> None:
    assert differences(OURS, {"scheduler": {**OURS, "torch": ""}}) == []
    (found,) = differences(OURS, {"scheduler": {**OURS, "jupyter_train": ""}})
    assert sentence([found], name="lab").startswith("the scheduler of lab has no jupyter_train")


def test_workers_that_agree_share_a_row() -> None:
    theirs = {f"tcp://a:{port}": {**OURS, "python": "3.12"} for port in range(5)}
    theirs["tcp://b:1"] = {**OURS, "python": "3.13"}
    lines = table(differences(OURS, theirs)).splitlines()
    assert len(lines) == 3
    assert "and 2 more" in lines[1]


def test_what_was_not_asked_does_not_differ() -> None:
    """Nobody runs our code on another Python."""
    (found,) = differences(OURS, {"tcp://a:1": {"python": "3.12", "torch": "2.13"}})
    assert found.package == "python"


@pytest.mark.parametrize(
    ("package", "text", "compared"),
    [
        ("torch", "2.13.0+cpu", "2.13"),
        ("torch", "2.13.1+cu130", "2.13"),
        ("python", "3.11.7.final.0", "3.11"),
        ("jupyter_train", "0.1.0.dev0", "0.1.0.dev0"),
        ("torch", "", ""),
    ],
)
def test_only_what_must_agree_is_compared(package: str, text: str, compared: str) -> None:
    assert comparable(package, text) == compared


def test_this_process_knows_its_own_without_importing_torch() -> None:
    assert here()["python"].count(".") == 1
    assert here()["torch"].count(".") == 1
