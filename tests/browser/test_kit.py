"""The browser tests' own equipment: it runs cells, sees pictures, and does not miss a failure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.browser.lab import Lab
from tests.browser.page import open_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PICTURE = """from IPython.display import Image
import base64
dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
Image(base64.b64decode(dot), format="png")"""


def write(lab: Lab, name: str, *sources: str) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec}), lab.root / name)


def test_cells_run_and_what_they_show_is_seen(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    write(lab, "good.ipynb", PICTURE, "print('the answer is', 6 * 7)", "x = 1")
    with open_notebook(browser, lab, "good.ipynb") as notebook:
        notebook.wait_for_kernel()
        notebook.run_all(timeout_s=60)
        assert notebook.images_of(notebook.cell_with("base64")) == [(1, 1)]
        assert notebook.output_text(notebook.cell_with("the answer is")).strip() == "the answer is 42"
        notebook.screenshot(tmp_path / "shots" / "page.png")
        assert (tmp_path / "shots" / "page.png").stat().st_size > 1000


def test_a_cell_that_fails_is_reported(lab: Lab, browser: Browser) -> None:
    write(lab, "bad.ipynb", "1 / 0", "print('not reached')")
    with open_notebook(browser, lab, "bad.ipynb") as notebook:
        notebook.wait_for_kernel()
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            notebook.run_all(timeout_s=60)
