"""A kernel as campaigns need it: cells that may fail, and things done to it while a cell runs."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kernel import Kernel

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a cell ended."""

    text: str  #: what it printed
    error: str = ""  #: the name of its exception
    said: str = ""  #: its traceback, without colours
    took_s: float = 0.0  #: from the press to the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something to do while a cell runs, ``at_s`` seconds after the press."""

    at_s: float
    do: Callable[[], None]


class Patient(Kernel):
    """A kernel that faults are done to. Ranks prove themselves in it, as they do for users."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, settings={"DASK_JUPYTER_TRAIN__CHECK": "True"})

    def interrupt(self) -> None:
        """The ■ of a front end."""
        self._manager.interrupt_kernel()

    def kill9(self) -> None:
        """As the OOM killer ends it."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Of the kernel's process."""
        return int(self._manager.provisioner.process.pid)

    def go(self, code: str, acts: Sequence[Act] = (), *, timeout_s: float = 120.0) -> Ended:
        """Runs a cell to its end, whatever end; ``acts`` (in order of time) that come due after it are left out.

        Raises:
            RuntimeError: it did not end in time, or the kernel died.
        """
        begun = time.monotonic()
        message, _ = self.press(code)
        waiting = list(acts)
        printed: list[str] = []
        error = said = ""
        while (now := time.monotonic() - begun) < timeout_s:
            if waiting and now >= waiting[0].at_s:
                waiting.pop(0).do()
                continue
            due = waiting[0].at_s - now if waiting else 1.0
            try:
                received = self._client.get_iopub_msg(timeout=max(0.001, min(due, 1.0)))
            except queue.Empty:
                if not self._manager.is_alive():
                    raise RuntimeError(f"the kernel died; it had printed {''.join(printed)}") from None
                continue
            if received["parent_header"].get("msg_id") != message:
                continue
            content, kind = received["content"], received["msg_type"]
            if kind == "stream":
                printed.append(content["text"])
            elif kind == "error":
                error, said = str(content["ename"]), _ANSI.sub("", "\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                took = time.monotonic() - begun
                with contextlib.suppress(queue.Empty):
                    self._client.get_shell_msg(timeout=10)
                return Ended(text="".join(printed), error=error, said=said, took_s=took)
        raise RuntimeError(f"a cell did not end within {timeout_s} s:\n{code}")
