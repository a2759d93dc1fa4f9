"""The first notebook in JupyterLab, in a real browser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import Lab, stop_everything
from tests.browser.page import NotebookPage, open_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "01-first-run.ipynb"


def shows_a_curve(notebook: NotebookPage) -> bool:
    images = notebook.images_of(notebook.cell_with("%%train"))
    return any(width >= 300 and height >= 100 for width, height in images)


def test_the_first_notebook_runs_and_keeps_its_curve(lab: Lab, browser: Browser, artifacts: Path) -> None:
    shutil.copy(NOTEBOOK, lab.root / NOTEBOOK.name)
    with open_notebook(browser, lab, NOTEBOOK.name) as notebook:
        notebook.wait_for_kernel()
        notebook.run_all(timeout_s=180)

        training = notebook.cell_with("%%train")
        said = notebook.output_text(notebook.cell_with("held-out accuracy"))
        notebook.screenshot(artifacts / "01-first-run.png", cell=training)
        accuracy = re.search(r"held-out accuracy: ([0-9.]+)%", said)
        assert accuracy is not None, said
        assert float(accuracy.group(1)) >= 97
        assert shows_a_curve(notebook)
        assert "held-out digits are right" in notebook.output_text(training)

        # What is saved shows the same to somebody who has neither a kernel nor this cluster.
        notebook.command("docmanager:save")
        stop_everything(lab)
        notebook.load()
        assert shows_a_curve(notebook)
        notebook.screenshot(artifacts / "01-first-run-reopened.png", cell=notebook.cell_with("%%train"))
        assert notebook.problems == []
