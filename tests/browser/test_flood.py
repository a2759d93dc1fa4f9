"""A cell that prints 50 MB, and one that animates, in JupyterLab: the page lives."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.browser.lab import Lab, stop_everything
from tests.browser.page import NotebookPage, open_notebook

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

RESPONSIVE_S = 2.0  #: a page that takes longer for nothing at all is not alive; generous, for a busy machine

FLOOD = "%%train -n 1 --name flood\nfor n in range(500_000):\n    print(f'{n:>99}')\nprint('accuracy 0.97')"
ANIMATED = """%%train -n 1 --name animated
import matplotlib.pyplot as plt
from IPython.display import clear_output
for n in range(30):
    plt.plot(range(n + 1))
    plt.show()
    print('frame', n)
    clear_output(wait=True)
print('animated to the end')
{'frames': n + 1}"""


def saved(lab: Lab, name: str, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.root / name)


def slowest_answer_while_it_runs(notebook: NotebookPage, cell: str, until: str, timeout_s: float) -> float:
    """Seconds that the page took at most to answer, from running all cells until ``until`` stands under ``cell``."""
    notebook.page.evaluate("() => { void window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    slowest, end = 0.0, time.monotonic() + timeout_s
    while until not in notebook.output_text(notebook.cell_with(cell)):
        assert time.monotonic() < end, notebook.output_text(notebook.cell_with(cell))[-2000:]
        began = time.monotonic()
        notebook.page.evaluate("() => new Promise(done => requestAnimationFrame(() => done(1)))")
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.1)
    return slowest


def test_a_page_lives_through_50_mb_of_prints(lab: Lab, browser: Browser, artifacts: Path) -> None:
    saved(lab, "flood.ipynb", "%load_ext jupyter_train", FLOOD)
    with open_notebook(browser, lab, "flood.ipynb") as notebook:
        notebook.wait_for_kernel()
        slowest = slowest_answer_while_it_runs(notebook, "range(500_000)", "accuracy 0.97", 180)
        notebook.page.wait_for_timeout(500)
        notebook.screenshot(artifacts / "flood.png", cell=notebook.cell_with("range(500_000)"))
        said = notebook.output_text(notebook.cell_with("range(500_000)"))
        assert slowest < RESPONSIVE_S
        assert "SUCCEEDED" in said
        assert "only in the log: %train log flood" in said
        assert len(said) < 1_000_000
        assert notebook.problems == []
        stop_everything(lab)


def test_an_animation_leaves_the_view_and_its_last_output(
    lab: Lab, browser: Browser, artifacts: Path
) -> None:
    saved(lab, "animated.ipynb", "%load_ext jupyter_train", ANIMATED)
    with open_notebook(browser, lab, "animated.ipynb") as notebook:
        notebook.wait_for_kernel()
        slowest = slowest_answer_while_it_runs(notebook, "range(30)", "'frames': 30", 120)
        notebook.page.wait_for_timeout(2500)
        notebook.screenshot(artifacts / "animated.png", cell=notebook.cell_with("range(30)"))
        said = notebook.output_text(notebook.cell_with("range(30)"))
        assert slowest < RESPONSIVE_S
        assert said.count("(20") == 1, said  # one view of the run
        assert "SUCCEEDED" in said
        assert "frame 29" not in said
        assert "animated to the end" in said
        assert notebook.problems == []
        stop_everything(lab)
