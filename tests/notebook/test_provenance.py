"""What is on record of a run besides its cell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from jupyter_train._version import __version__
from jupyter_train.notebook.git import GitLook
from jupyter_train.notebook.provenance import notebook_folder, on_record, provenance, versions
from jupyter_train.record import RunSpec, RunView
from jupyter_train.transport.capture import capture
from jupyter_train.transport.content import ContentStore


def test_versions_are_those_that_are_imported() -> None:
    found = versions()
    assert found["torch"] == str(torch.__version__)
    assert found["numpy"] == np.__version__
    assert found["jupyter_train"] == __version__
    assert found["distributed"]


def test_it_is_json_and_says_nothing_of_git_where_there_is_none(tmp_path: Path) -> None:
    content = ContentStore(tmp_path / "content")
    found = provenance(GitLook(str(tmp_path)), capture("pass", {}, content=content))
    assert json.loads(json.dumps(found)) == found
    assert found.keys() == {"versions", "hostname", "definitions", "modules"}


def test_the_notebooks_folder_counts_where_it_is_known(tmp_path: Path) -> None:
    notebook = tmp_path / "a.ipynb"
    notebook.touch()
    assert notebook_folder(str(notebook), "/cwd") == str(tmp_path)
    assert notebook_folder(str(tmp_path / "gone.ipynb"), "/cwd") == "/cwd"
    assert notebook_folder("a.ipynb", "/cwd") == "/cwd"
    assert notebook_folder("", "/cwd") == "/cwd"


def test_a_run_that_says_nothing_of_it_or_nonsense_can_be_read() -> None:
    spec = RunSpec(run_id="r", name="n", source="pass", ranks=1, params={"lr": 1}, provenance=["x"])  # type: ignore[arg-type]
    found = on_record(RunView(run_id="r", spec=spec, machines={0: {"cpu": "Z80"}}))
    assert (found["cell"], found["params"], found["machines"]) == ("pass", {"lr": 1}, {0: {"cpu": "Z80"}})
    assert on_record(RunView(run_id="r")) == {}
