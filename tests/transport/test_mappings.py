"""What the notebook has mapped from a file is mapped from it there, and what ranks write stays theirs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from jupyter_train.errors import CaptureError
from jupyter_train.transport.capture import Capture, capture
from jupyter_train.transport.load import load_capture
from jupyter_train.transport.mappings import FileMappings
from jupyter_train.transport.pages import _can_tell
from tests.transport.conftest import Notebook

pytestmark = pytest.mark.skipif(not _can_tell(), reason="no page table to read here")


@pytest.fixture
def data(notebook: Notebook) -> Path:
    path = notebook.folder / "data file.npy"
    np.arange(1_000_000.0).tofile(path)
    notebook.cell(f"import numpy as np, torch\npath = {str(path)!r}")
    return path


def captured(notebook: Notebook, source: str) -> Capture:
    return capture(source, notebook.names, content=notebook.content, shared_disk=True)


def loaded(notebook: Notebook, capture: Capture) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "__main__"}
    load_capture(capture.refs, notebook.content, namespace)
    return namespace


@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_mapped_file_travels_by_its_name(notebook: Notebook, data: Path, mode: str) -> None:
    notebook.cell(f"x = np.memmap(path, float, {mode!r}, offset=80)\npart = x[200_000:]")

    sent = captured(notebook, "x, part")
    there = loaded(notebook, sent)

    assert sent.written_bytes < 20_000
    x, part = there["x"], there["part"]
    assert isinstance(x, np.memmap)
    assert (x.filename, x.mode, x.offset) == (str(data), mode, 80)
    assert np.array_equal(x, np.arange(10.0, 1_000_000.0))
    assert np.shares_memory(x, part)


def test_what_is_written_there_changes_neither_the_file_nor_the_notebook(
    notebook: Notebook, data: Path
) -> None:
    notebook.cell("x = np.memmap(path, float, 'c')")
    there = loaded(notebook, captured(notebook, "x"))

    there["x"][5] = -1  # type: ignore[index]

    assert notebook["x"][5] == 5
    assert np.fromfile(data)[5] == 5


def test_what_the_notebook_changed_in_its_private_copy_travels_as_bytes(
    notebook: Notebook, data: Path
) -> None:
    notebook.cell("x = np.memmap(path, float, 'c')\nx[7] = 70")
    sent = captured(notebook, "x")

    assert sent.written_bytes > data.stat().st_size
    assert loaded(notebook, sent)["x"][7] == 70  # type: ignore[index]


def test_a_file_open_for_writing_travels_as_it_is_now(notebook: Notebook, data: Path) -> None:
    notebook.cell("x = np.memmap(path, float, 'r+')")
    sent = captured(notebook, "x")
    notebook.cell("x[7] = 70")

    assert loaded(notebook, sent)["x"][7] == 7  # type: ignore[index]


def test_a_file_that_was_changed_meanwhile_is_an_error_that_names_it(notebook: Notebook, data: Path) -> None:
    notebook.cell("x = np.memmap(path, float, 'r')")
    sent = captured(notebook, "x")
    os.utime(data, (1, 1))

    with pytest.raises(CaptureError, match=r"data file.npy was changed since"):
        loaded(notebook, sent)


def test_tensors_over_a_mapped_file_are_known_too(notebook: Notebook, data: Path) -> None:
    notebook.cell("x = torch.from_file(path, shared=False, size=1_000_000, dtype=torch.float64)")
    sent = captured(notebook, "x")

    assert sent.written_bytes < 20_000
    assert torch.equal(loaded(notebook, sent)["x"], notebook["x"])  # type: ignore[arg-type]


def test_the_limit_is_about_what_travels(notebook: Notebook, data: Path) -> None:
    notebook.cell("x = np.memmap(path, float, 'r')")

    capture("x", notebook.names, content=notebook.content, shared_disk=True, limit_bytes=1_000_000)
    with pytest.raises(CaptureError, match=rf"x \(memmap of {data} 1000000 float64\) 8 MB"):
        capture("x", notebook.names, content=notebook.content, limit_bytes=1_000_000)


def test_memory_of_no_file_is_none(data: Path) -> None:
    array = np.zeros(1_000_000)

    assert FileMappings().part_at(array.ctypes.data, array.nbytes) is None
