"""A notebook open in JupyterLab, as its user sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.chromium import ARGUMENTS, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    from tests.browser.lab import Lab

_CELLS = ".jp-Notebook .jp-Cell"
_CODE_CELLS = ".jp-Notebook .jp-CodeCell"
# The kernel's status says idle in the middle of a cell that uses subshells; the prompts do not.
_ALL_DONE = """() => {
  const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')];
  const texts = prompts.map(p => p.textContent ?? '');
  return texts.length > 0 && texts.every(t => /\\[\\d+\\]/.test(t));
}"""
# From the model: in the page an error looks like any text on stderr.
_ERRORS = """() => {
  const panels = [...window.jupyterapp.shell.widgets('main')];
  const cells = panels.find(p => p.content?.model?.cells)?.content.model.cells ?? [];
  const outputs = [...cells].flatMap(cell => cell.outputs?.toJSON() ?? []);
  return outputs.filter(o => o.output_type === 'error').map(o => o.traceback.join('\\n'));
}"""
_KERNEL_READY = """() => {
  const panels = [...window.jupyterapp.shell.widgets('main')];
  const kernel = panels.find(p => p.sessionContext)?.sessionContext?.session?.kernel;
  return kernel?.status === 'idle';
}"""
_SIZE_ONCE_DRAWN = "i => i.decode().then(() => [i.naturalWidth, i.naturalHeight], () => [0, 0])"


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class NotebookPage:
    """One notebook in one tab. ``problems`` collects what the page complained about."""

    def __init__(self, page: Page, lab: Lab, name: str) -> None:
        self.page = page
        self.lab = lab
        self.name = name
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)[:500]))

    def load(self, *, timeout_s: float = 60.0) -> None:
        """Loads, or loads again, the page; returns when the cells are there."""
        self.page.goto(f"{self.lab.url}/lab/tree/{self.name}?reset&token={self.lab.token}")
        self.page.wait_for_selector(_CELLS, timeout=timeout_s * 1000)

    def wait_for_kernel(self, *, timeout_s: float = 60.0) -> None:
        """Returns when a kernel is there and idle."""
        self.page.wait_for_function(_KERNEL_READY, timeout=timeout_s * 1000)

    def command(self, name: str) -> None:
        """Carries out one of JupyterLab's commands and waits until it has been."""
        self.page.evaluate("(name) => window.jupyterapp.commands.execute(name).then(() => null)", name)

    def run_all(self, *, timeout_s: float) -> None:
        """Runs all cells and returns when every one has its number.

        Raises:
            AssertionError: a cell failed; holds what the page shows of it.
        """
        self.page.evaluate("() => { void window.jupyterapp.commands.execute('notebook:run-all-cells') }")
        self.page.wait_for_function(
            f"() => ({_ALL_DONE})() || ({_ERRORS})().length > 0", timeout=timeout_s * 1000, polling=100
        )
        errors = self.page.evaluate(_ERRORS)
        assert errors == [], "\n".join(errors)

    def cell_with(self, text: str) -> Locator:
        """The code cell whose source contains ``text``."""
        return self.page.locator(_CODE_CELLS).filter(
            has=self.page.locator(".jp-InputArea-editor", has_text=text)
        )

    def images_of(self, cell: Locator, *, timeout_s: float = 10.0) -> list[tuple[int, int]]:
        """Sizes in pixels of the pictures under a cell; one that the browser cannot draw counts as (0, 0).

        Waits for the first one: outputs are rendered some time after their cell is there.
        """
        images = cell.locator(".jp-OutputArea-output img")
        images.first.wait_for(state="attached", timeout=timeout_s * 1000)
        return [tuple(images.nth(i).evaluate(_SIZE_ONCE_DRAWN)) for i in range(images.count())]

    def output_text(self, cell: Locator) -> str:
        """Everything that stands under a cell."""
        return "\n".join(cell.locator(".jp-OutputArea-output").all_inner_texts())

    def screenshot(self, file: Path, *, cell: Locator | None = None) -> None:
        """Keeps a picture of the tab, scrolled to ``cell`` where one is given."""
        file.parent.mkdir(parents=True, exist_ok=True)
        if cell is not None:
            cell.scroll_into_view_if_needed()
        self.page.screenshot(path=file)


@contextlib.contextmanager
def open_notebook(
    browser: Browser, lab: Lab, name: str, *, width: int = 1300, height: int = 1000
) -> Iterator[NotebookPage]:
    """``name``, a path below the server's root, in a tab of its own."""
    context = browser.new_context(viewport={"width": width, "height": height})
    try:
        notebook = NotebookPage(context.new_page(), lab, name)
        notebook.load()
        yield notebook
    finally:
        context.close()
