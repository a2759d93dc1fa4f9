"""A shell without a kernel, and a cluster in memory."""

from __future__ import annotations

import atexit
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from jupyter_train import cluster
from jupyter_train.notebook import session as sessions
from tests.notebook import fakes


@pytest.fixture
def control() -> Iterator[fakes.FakeControl]:
    """The controller in memory."""
    made = fakes.FakeControl()
    yield made
    made.finish()


@pytest.fixture
def connection(control: fakes.FakeControl, monkeypatch: pytest.MonkeyPatch) -> fakes.FakeConnection:
    """The cluster that ``%%train`` finds; capture and result are faked with it."""
    made = fakes.FakeConnection(control)
    opened: list[tuple[str | None, int | None]] = []

    def open_cluster(name: str | None = None, *, ranks: int | None = None) -> fakes.FakeConnection:
        opened.append((name, ranks))
        return made

    made.opened = opened  # type: ignore[attr-defined]
    for name, value in {
        "open_cluster": open_cluster,
        "current": lambda: made,
        "clusters": lambda: [made.record],
        "use": lambda target: made,
        "stop": lambda name=None: made.name,
        "start_local": lambda n=None, **options: made.record,
    }.items():
        monkeypatch.setattr(cluster, name, value, raising=False)
    capture = ModuleType("jupyter_train.transport.capture")
    capture.capture = fakes.capture  # type: ignore[attr-defined]
    result = ModuleType("jupyter_train.transport.result")
    result.apply_result = fakes.apply_result  # type: ignore[attr-defined]
    result.load_result = fakes.load_result  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, capture.__name__, capture)
    monkeypatch.setitem(sys.modules, result.__name__, result)
    return made


class Published(DisplayPublisher):  # type: ignore[misc]
    """Keeps what is displayed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shown: list[dict[str, Any]] = []
        self.updates: list[bool] = []
        self.ids: set[str] = set()

    def publish(self, data: dict[str, Any], **kwargs: Any) -> None:
        self.shown.append(data)
        self.updates.append(bool(kwargs.get("update")))
        self.ids.add(str((kwargs.get("transient") or {}).get("display_id")))


@dataclass
class Shell:
    """A notebook's shell as a user has it, without a kernel behind it."""

    ip: InteractiveShell
    capsys: pytest.CaptureFixture[str]
    errors: list[list[str]] = field(default_factory=list)

    def run(self, cell: str) -> Any:
        """Runs a cell; what it raised is in ``error``."""
        self.result = self.ip.run_cell(cell, store_history=True)
        return self.result

    @property
    def error(self) -> BaseException | None:
        return self.result.error_before_exec or self.result.error_in_exec  # type: ignore[no-any-return]

    @property
    def traceback(self) -> list[str]:
        """Lines of the newest traceback as shown, without colours."""
        text = "\n".join(self.errors[-1])
        return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()

    @property
    def shown(self) -> list[dict[str, Any]]:
        return self.ip.display_pub.shown  # type: ignore[no-any-return]


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, connection: fakes.FakeConnection
) -> Iterator[Shell]:
    """A shell with the extension loaded and the cluster in memory."""
    monkeypatch.setattr(sessions, "_session", None)
    monkeypatch.setattr(sys, "displayhook", sys.displayhook)
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    InteractiveShell.clear_instance()
    ip = InteractiveShell.instance(config=config, display_pub_class=Published, displayhook_class=DisplayHook)
    ip.kernel = SimpleNamespace()  # as a notebook's shell has one: displays are shown
    made = Shell(ip, capsys)
    monkeypatch.setattr(ip, "_showtraceback", lambda kind, value, lines: made.errors.append(list(lines)))
    made.run("%load_ext jupyter_train")
    assert made.error is None
    yield made
    InteractiveShell.clear_instance()
    # Otherwise every shell lives until the interpreter ends, and then asks for a collection of all garbage.
    atexit.unregister(ip.atexit_operations)
