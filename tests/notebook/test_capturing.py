"""``%train capture``: what would travel, from names, from the last cell, above a cell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jupyter_train.notebook.complete import candidates
from tests.notebook.conftest import Shell
from tests.notebook.fakes import FakeControl


@pytest.fixture
def notebook(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell over the real capture; only the cluster is in memory."""
    for name in ("capture", "result"):
        monkeypatch.delitem(sys.modules, f"jupyter_train.transport.{name}")
    import jupyter_train.transport.capture

    monkeypatch.setattr(jupyter_train.transport, "capture", jupyter_train.transport.capture)
    shell.run(
        "import numpy as np\nx = np.zeros((1000, 100))\npart = x[:500]\nfew = [1, 2]\n"
        "import threading; lock = threading.Lock()"
    )
    return shell


def said(shell: Shell, cell: str) -> list[str]:
    shell.capsys.readouterr()
    shell.run(cell)
    assert shell.error is None
    return shell.capsys.readouterr().out.splitlines()


def test_names_are_told_with_type_size_and_what_they_share(notebook: Shell) -> None:
    lines = said(notebook, "%train capture x part few")

    assert lines[0] == "x, part, few: 3 names, 800 kB; 800 kB of it not yet on cluster fake"
    rows = {line.split()[0]: line for line in lines[2:]}
    assert "ndarray 500×100 float64" in rows["part"]
    assert "ndarray 1000×100 float64" in rows["x"]
    assert rows["x"].endswith("part")
    assert "list of 2" in rows["few"]


def test_what_the_workers_have_is_not_new(notebook: Shell, control: FakeControl) -> None:
    from jupyter_train.transport.survey import survey

    control.has = {ref.key for ref in survey("", notebook.ip.user_ns, names=["x"]).files}

    lines = said(notebook, "%train capture x")

    assert lines[0].endswith("0 B of it not yet on cluster fake")
    assert lines[-1].split()[-1] == "–"


def test_the_word_capture_above_a_cell_starts_nothing(notebook: Shell, control: FakeControl) -> None:
    lines = said(notebook, "%%train capture -n 2\nnp.sum(x)\nfew.append(3)\nlock")

    assert control.runs == {}
    assert lines[0].startswith("this cell: 2 names")
    assert "imported there: np" in lines
    assert lines[-1].startswith("cannot travel: lock")
    assert notebook.ip.user_ns["few"] == [1, 2]
    assert said(notebook, "%train capture")[0].startswith("the last %%train cell: 2 names")


def test_a_word_that_means_nothing_is_an_error_with_the_nearest(notebook: Shell) -> None:
    notebook.run("%train capture fwe")

    assert "neither a name of the notebook nor a run; did you mean few?" in str(notebook.error)
    assert type(notebook.error).__name__ == "UsageError"


def test_without_a_cell_before_it_says_how_to_ask(notebook: Shell) -> None:
    notebook.run("%train capture")

    assert "no %%train cell ran" in str(notebook.error)


def test_tab_offers_the_word_and_the_names_of_the_notebook(notebook: Shell) -> None:
    assert candidates(["%%train"], "cap") == ["capture"]
    assert "--ranks" in candidates(["%%train", "capture"], "--")
    assert candidates(["%train"], "cap") == ["capture"]
    assert candidates(["%train", "capture"], "f") == ["few"]
    assert candidates(["%train", "capture", "few"], "pa") == ["part"]
    assert "np" not in candidates(["%train", "capture"], "")


def test_local_modules_are_told_as_source_files(
    notebook: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_me.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    lines = said(notebook, "%%train capture\nimport beside_me\nbeside_me.x")

    assert lines[-1] == "as source files, 6 B: beside_me"
