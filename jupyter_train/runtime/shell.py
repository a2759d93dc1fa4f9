"""IPython as a rank has it: what ``display`` and ``get_ipython()`` answer, without history, files or threads.

Libraries ask by the name of the class where they are (rich, tqdm and others
draw otherwise in a notebook), so it is called what the notebook's own is.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Mapping
from typing import Any, Protocol

from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


class Audience(Protocol):
    """Whom a rank shows something."""

    def display(
        self, data: Mapping[str, Any], metadata: Mapping[str, Any], *, display_id: str | None, update: bool
    ) -> None:
        """A mime bundle."""

    def clear(self, *, wait: bool) -> None:
        """What was shown is to go; with ``wait`` once something follows."""


class Publisher(DisplayPublisher):
    """What ``display`` and ``clear_output`` end in."""

    audience: Audience | None = None

    def publish(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        source: Any = None,
        *,
        transient: Mapping[str, Any] | None = None,
        update: bool = False,
        **more: Any,
    ) -> None:
        """See IPython's `DisplayPublisher`."""
        if self.audience is not None:
            shown = (transient or {}).get("display_id")
            self.audience.display(
                data, metadata or {}, display_id=None if shown is None else str(shown), update=bool(update)
            )

    def clear_output(self, wait: bool = False) -> None:
        """See IPython's `DisplayPublisher`."""
        if self.audience is not None:
            self.audience.clear(wait=bool(wait))


class ZMQInteractiveShell(InteractiveShell):
    """IPython's shell less all that touches files, the terminal or other processes."""

    def init_ipython_dir(self, ipython_dir: Any) -> None:
        """No folder is made."""

    def init_profile_dir(self, profile_dir: Any) -> None:
        """No profile."""

    def init_virtualenv(self) -> None:
        """The rank's path is the notebook's."""

    def init_sys_modules(self) -> None:
        """``__main__`` is the rank's to set."""
        self._main_mod_cache: dict[str, Any] = {}

    def init_completer(self) -> None:
        """Nobody completes here."""

    def init_logstart(self) -> None:
        """No log file."""

    def init_payload(self) -> None:
        """There is no prompt to fill."""


def new_shell() -> ZMQInteractiveShell:
    """IPython's one shell of this process, made if need be; takes 12 ms, its import 0.1 s."""
    if InteractiveShell.initialized():
        return InteractiveShell.instance()  # type: ignore[return-value]
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.IPKernelApp.connection_file = ""  # by this section many tell a notebook from a terminal
    before = (sys.excepthook, sys.displayhook)
    had_prompt = hasattr(sys, "ps1")
    shell = ZMQInteractiveShell.instance(
        config=config,
        display_pub_class=Publisher,
        user_module=types.ModuleType("__main__"),
        user_ns={},
        autocall=0,
    )
    sys.excepthook, sys.displayhook = before
    if not had_prompt:
        del (
            sys.ps1
        )  # by the prompt Lightning tells a session, in which it starts no process group, from a program
    return shell


def enter(shell: InteractiveShell, audience: Audience, module: types.ModuleType) -> None:
    """Make ``shell`` that of the cell in ``module``, which shows itself to ``audience``."""
    shell.user_module = module
    shell.user_ns = vars(module)
    publisher: Any = shell.display_pub
    publisher.audience = audience
    builtins.get_ipython = shell.get_ipython  # type: ignore[attr-defined]
