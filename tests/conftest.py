"""What holds for every test: a home of its own, nobody's settings, nothing left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import chromium
from tests.kit import leaks, processes

if TYPE_CHECKING:
    from jupyter_train.cluster import Connection
    from tests.e2e.kit import Notebook

# Dask reads its settings when it is first imported, Jupyter when a kernel starts: before any test.
# Short, because paths of sockets may not be longer than 107 bytes.
_SETTINGS = Path(tempfile.mkdtemp(prefix="jt-"))
for _name in ("DASK_CONFIG", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"):
    os.environ[_name] = str(_SETTINGS / _name.lower())
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
# A process more for every cell that is split: the tests of the proof ask for it.
os.environ["DASK_JUPYTER_TRAIN__CHECK"] = "False"
# Kernels and servers that tests start find this package, whether it is installed or not.
_ROOT = str(Path(__file__).resolve().parent.parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")]))


def pytest_unconfigure() -> None:
    shutil.rmtree(_SETTINGS, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Browser tests without a browser: skipped with the reason, failed where one is required."""
    reason = chromium.why_not()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("browser") and not chromium.is_required():
            item.add_marker(pytest.mark.skip(reason=f"BROWSER TEST NOT RUN: {reason}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and (reason := chromium.why_not()):
        pytest.fail(f"{chromium.REQUIRED} is set, but there is {reason}", pytrace=False)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [r for r in terminalreporter.getreports("skipped") if "BROWSER TEST NOT RUN" in str(r.longrepr)]
    if skipped:
        terminalreporter.write_sep("!", f"{len(skipped)} BROWSER TESTS WERE NOT RUN", red=True, bold=True)
        terminalreporter.write_line(str(chromium.why_not()))


@pytest.fixture(scope="session")
def session_home() -> Iterator[Path]:
    """The home of the cluster that tests share."""
    folder = Path(tempfile.mkdtemp(prefix="jt-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``JUPYTER_TRAIN_HOME`` of this test: a fresh folder, or that of ``local_cluster`` where it uses that.

    Fails the test if a process that works for a fresh home outlives it.
    """
    if "local_cluster" in request.fixturenames:
        shared: Path = request.getfixturevalue("session_home")
        monkeypatch.setenv(processes.HOME, str(shared))
        yield shared
        return
    folder = Path(tempfile.mkdtemp(prefix="jt-"))
    monkeypatch.setenv(processes.HOME, str(folder))
    yield folder
    left = processes.wait_gone(folder, 3.0) if any(folder.iterdir()) else []
    processes.end(p.pid for p in left)
    shutil.rmtree(folder, ignore_errors=True)
    if left:
        pytest.fail("left running: " + "; ".join(f"{p.pid} {p.command[:200]}" for p in left), pytrace=False)


@pytest.fixture(autouse=True)
def nothing_left_behind(home: Path) -> Iterator[None]:
    """Fails a test that leaves a thread or a child process of its own.

    What session-wide fixtures hold was there before: they are set up first.
    """
    before = leaks.census()
    yield
    left = leaks.wait_for_leaks(before)
    if left.threads or left.children:
        told = leaks.describe(left)
        processes.end(left.children)
        pytest.fail(f"left behind:\n{told}", pytrace=False)


@pytest.fixture(scope="session")
def local_cluster(session_home: Path) -> Iterator[Connection]:
    """A cluster of our own kind with two workers, shared by all tests that ask for it."""
    from jupyter_train import cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(processes.HOME, str(session_home))
        connection = cluster.use(cluster.start_local(2).name)
        try:
            yield connection
        finally:
            cluster.stop(connection.name)
            cluster.close()
    left = processes.wait_gone(session_home)
    processes.end(p.pid for p in left)
    assert not left, f"the cluster left processes: {left}"


@pytest.fixture
def kernel(home: Path, tmp_path: Path) -> Iterator[Notebook]:
    """A real IPython kernel with ``jupyter_train`` loaded, working for this test's home."""
    from tests.e2e.kit import new_notebook

    with new_notebook(home, tmp_path) as opened:
        yield opened
