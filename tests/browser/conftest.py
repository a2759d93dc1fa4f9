"""A server and a browser for browser tests; screenshots are kept as artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import Lab, running_lab
from tests.browser.page import open_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ARTIFACTS = Path(__file__).resolve().parents[2] / "test-artifacts"


@pytest.fixture
def artifacts() -> Path:
    """Where screenshots are kept, for people to look at."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture
def lab(home: Path, tmp_path: Path) -> Iterator[Lab]:
    """A JupyterLab of this test's own."""
    with running_lab(tmp_path / "lab", home) as running:
        yield running


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A headless Chromium of this test's own."""
    with open_browser() as opened:
        yield opened
