"""The notebooks that people start from: stored clean, and they do what their text says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
FIRST = NOTEBOOKS / "01-first-run.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("file", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda file: file.name)
def test_notebooks_are_stored_without_what_they_showed(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"


def test_the_first_notebook_trains_with_nothing_but_one_line() -> None:
    notebook = nbformat.read(FIRST, as_version=4)
    ours = [line for cell in code_cells(notebook) for line in cell.source.splitlines() if "train" in line]
    calls = [line for line in ours if re.search(r"\btrain\.|jupyter_train|%%?train\b", line)]
    loop_methods = ("model.train()",)
    assert [line.strip() for line in calls if line.strip() not in loop_methods] == [
        "%load_ext jupyter_train",
        "%%train -n 2 --name digits",
    ]


@pytest.fixture
def executed(home: Path, tmp_path: Path) -> Iterator[Any]:
    """The first notebook as nbclient leaves it, with a cluster that ends afterwards."""
    from nbclient import NotebookClient

    from jupyter_train import cluster

    notebook = nbformat.read(FIRST, as_version=4)
    try:
        NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(tmp_path)}}).execute()
        yield notebook
    finally:
        for record in cluster.clusters():
            cluster.stop(record.name)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_first_notebook_reads_held_out_digits(executed: Any) -> None:
    cells = code_cells(executed)
    training = next(cell for cell in cells if cell.source.startswith("%%train"))
    assert any("image/png" in output.get("data", {}) for output in training.outputs)
    said = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    accuracy = re.search(r"held-out accuracy: ([0-9.]+)%", said)
    assert accuracy is not None, said
    assert float(accuracy.group(1)) >= 97
