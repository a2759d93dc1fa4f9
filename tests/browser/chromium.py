"""Finding a browser that is installed; the tests download none."""

from __future__ import annotations

import importlib.util
import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ON_MACOS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
#: In CI a missing browser is a failure, not a skip.
REQUIRED = "JUPYTER_TRAIN_REQUIRE_BROWSER"
#: No traffic but to the page under test; the sandbox does not work for root.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Path of the browser; ``JUPYTER_TRAIN_CHROMIUM`` names another one."""
    given = os.environ.get("JUPYTER_TRAIN_CHROMIUM")
    if given:
        return given
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in (*found, *ON_MACOS) if path and os.path.exists(path)), None)


def why_not() -> str | None:
    """Why browser tests cannot run here; None where they can."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed (pip install playwright)"
    if find_chromium() is None:
        return "no Chromium on this machine (apt-get install chromium fonts-dejavu-core)"
    return None


def is_required() -> bool:
    """Whether a missing browser is a failure."""
    return os.environ.get(REQUIRED, "") not in ("", "0")
