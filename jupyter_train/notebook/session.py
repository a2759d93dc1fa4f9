"""What one kernel knows: its id, its notebook, its shell, and the runs it started.

One object per process, made at the first use. Used from the kernel's main
thread; the live threads only read its id.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from jupyter_train.notebook.run import Run

RUNS_KEPT = 64


@dataclass(kw_only=True)
class Session:
    """One kernel."""

    id: str
    shell: InteractiveShell | None = None
    runs: dict[str, Run] = field(default_factory=dict)  #: by id, oldest first
    last_cell: str = ""  #: source of the newest ``%%train`` cell, also of one that was refused
    checks: dict[str, str] = field(
        default_factory=dict
    )  #: what a run was to prove → the newest such run's id

    @property
    def namespace(self) -> dict[str, Any]:
        """The notebook's names."""
        if self.shell is None:
            import __main__

            return vars(__main__)
        names: dict[str, Any] = self.shell.user_ns
        return names

    @property
    def has_front_end(self) -> bool:
        """A notebook shows what is displayed; a terminal only prints text."""
        return self.shell is not None and getattr(self.shell, "kernel", None) is not None

    @property
    def is_ending(self) -> bool:
        """The kernel was told to restart or to shut down: it does once its cell has ended."""
        return self.has_front_end and bool(getattr(self.shell, "exit_now", False))

    @property
    def notebook(self) -> str:
        """Path of the notebook, empty where nothing tells it."""
        given = self.namespace.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
        return str(given)

    @property
    def compiler_flags(self) -> int:
        """Of the shell's compiler: ``from __future__`` lines of earlier cells hold for those that follow."""
        return int(self.shell.compile.flags) if self.shell is not None else 0

    @property
    def default_name(self) -> str:
        """What a run is called that was given no name."""
        stem = "".join(c for c in Path(self.notebook).stem if c.isprintable()).strip()[:80]
        return stem or "run"

    def remember(self, run: Run) -> None:
        """Keeps ``run`` findable, with what it needs to bring its names back; the oldest ended ones are let go."""
        self.runs[run.id] = run
        for run_id in list(self.runs):
            if len(self.runs) <= RUNS_KEPT:
                break
            if self.runs[run_id].is_over:
                del self.runs[run_id]


_session: Session | None = None


def current_session() -> Session:
    """This process's session."""
    global _session
    if _session is None:
        _session = Session(id=os.urandom(16).hex())
        try:
            from IPython.core.getipython import get_ipython
        except ImportError:
            return _session
        _session.shell = get_ipython()
    return _session


def attach_shell(shell: InteractiveShell) -> Session:
    """The session, with its shell known: called by ``%load_ext``."""
    session = current_session()
    session.shell = shell
    return session
