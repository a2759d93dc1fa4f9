"""A notebook as a user has it: a real kernel, cells run one after the other."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.manager import KernelManager

if TYPE_CHECKING:
    from jupyter_train.store.summary import RunSummary

OUTPUTS = ("stream", "display_data", "execute_result", "update_display_data", "clear_output")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class CellError:
    """An error as the notebook shows it."""

    name: str
    value: str
    traceback: list[str]

    @property
    def plain_text(self) -> str:
        return ANSI.sub("", "\n".join(self.traceback))


@dataclass
class Reply:
    """Everything that appeared under one cell."""

    stdout: str = ""
    stderr: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    messages: list[tuple[str, dict[str, Any]]] = field(
        default_factory=list
    )  #: outputs as they came, with their kinds
    execution_count: int = 0
    error: CellError | None = None

    @property
    def all_text(self) -> str:
        shown = [str(d.get("text/plain", "")) for d in self.displays]
        error = self.error.plain_text if self.error else ""
        return ANSI.sub("", "\n".join([self.stdout, self.stderr, *shown, error]))


def wait_until(claim: Callable[[], bool], timeout_s: float) -> None:
    """Returns when ``claim`` holds; fails when it does not in time."""
    end = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < end, f"not within {timeout_s} s"
        time.sleep(0.02)


def processes_of_runs(home: Path) -> list[int]:
    """Pids of living processes that carry JUPYTER_TRAIN_RUN, ranks and what they started, of clusters over ``home``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                environ = (entry / "environ").read_bytes()
                is_of_a_run = b"JUPYTER_TRAIN_RUN=" in environ and str(home).encode() in environ
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if is_of_a_run and state not in "ZX":
                    found.append(int(entry.name))
    return found


class Notebook:
    """One kernel with jupyter_train loaded, over the home ``home``."""

    def __init__(self, home: Path, cwd: Path) -> None:
        self.home = home
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(
            env={**os.environ, "JUPYTER_TRAIN_HOME": str(home), "IPYTHONDIR": str(cwd / ".ipython")},
            cwd=str(cwd),
        )
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        loaded = self.run("%load_ext jupyter_train")
        assert loaded.error is None, loaded.all_text

    def start(self, code: str) -> str:
        """Sends a cell and does not wait. Returns its message id."""
        return str(self.client.execute(code))

    def run(
        self,
        code: str,
        timeout: float = 30,
        interrupt_when: Callable[[], bool] | None = None,
        silent: bool = False,
    ) -> Reply:
        """Runs a cell to its end; interrupts it (■) once as soon as ``interrupt_when`` holds.

        ``silent``: without a number and a place in the history.
        """
        message = str(self.client.execute(code, silent=silent))
        reply = Reply()
        end = time.monotonic() + timeout
        while True:
            assert time.monotonic() < end, f"the cell did not end in {timeout} s:\n{code}\n{reply.all_text}"
            if interrupt_when is not None and interrupt_when():
                interrupt_when = None
                self.manager.interrupt_kernel()
            try:
                received = self.client.get_iopub_msg(timeout=0.05)
            except queue.Empty:
                assert self.manager.is_alive(), "the kernel died"
                continue
            if received["parent_header"].get("msg_id") != message:
                continue
            content, kind = received["content"], received["msg_type"]
            if kind in OUTPUTS:
                reply.messages.append((kind, content))
            if kind == "execute_input":
                reply.execution_count = content["execution_count"]
            if kind == "stream":
                setattr(reply, content["name"], getattr(reply, content["name"]) + content["text"])
            elif kind in ("display_data", "execute_result", "update_display_data"):
                reply.displays.append(content["data"])
            elif kind == "error":
                reply.error = CellError(content["ename"], content["evalue"], content["traceback"])
            elif kind == "status" and content["execution_state"] == "idle":
                with contextlib.suppress(queue.Empty):
                    self.client.get_shell_msg(timeout=5)
                return reply

    def end_of(self, name: str) -> str:
        """How the newest run of that name, which has ended, ended.

        A reader of the journal learns it a commit later than who asks the controller.
        """
        wait_until(lambda: self._summary(name).state.is_terminal, 20)
        return str(self._summary(name).state)

    def run_is(self, name: str, state: str) -> bool:
        """Whether the newest run of that name is in that state by its journal, as any reader sees it."""
        return self.has_run(name) and str(self._summary(name).state) == state

    def has_run(self, name: str) -> bool:
        return any(run.name == name for run in self._runs())

    def _summary(self, name: str) -> RunSummary:
        return next(run for run in self._runs() if run.name == name)

    def _runs(self) -> list[RunSummary]:
        from jupyter_train.store.store import Store

        return Store(self.home).runs()

    def kill9(self) -> None:
        """kill −9 of the kernel, as the OOM killer does it."""
        os.kill(self.manager.provisioner.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@contextlib.contextmanager
def new_notebook(home: Path, cwd: Path) -> Iterator[Notebook]:
    """A kernel for the length of a with statement."""
    notebook = Notebook(home, cwd)
    try:
        yield notebook
    finally:
        notebook.close()
