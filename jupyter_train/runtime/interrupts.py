"""How a rank is reached from outside: the stop flag, an exception in its main thread, and its death.

The agent asks by a byte on the channel (``jupyter-train-control`` sets the
flag), then by a signal to the process: the kernel gives it to the main thread,
whose sleep or lock it breaks, and the handler raises StopRun there. It works
while other threads hold the interpreter.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jupyter_train.runtime import processes
from jupyter_train.runtime.channel import Command
from jupyter_train.runtime.stopping import StopFlag, StopRun


def raise_signal() -> int:
    """Number of the signal that raises StopRun in a rank. Real-time, so that no library uses it by chance."""
    return int(signal.SIGRTMIN) + 9


class Interrupts:
    """Of one rank. ``install`` in the main thread, once."""

    def __init__(self, stop: StopFlag) -> None:
        self._stop = stop
        self._in_cell = False
        self._pid = os.getpid()

    def install(self, channel: socket.socket) -> None:
        """Listen to the agent, to its signal, and to the death of the zygote."""
        signal.signal(raise_signal(), self._raise)
        signal.signal(signal.SIGTERM, self._die)
        os.register_at_fork(after_in_child=_forget)
        threading.Thread(
            target=self._listen, args=(channel,), name="jupyter-train-control", daemon=True
        ).start()

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Within, the agent's signal raises StopRun; outside it does nothing, so that results are written whole.

        A signal at the very end may still raise on the way out.
        """
        self._in_cell = True
        try:
            yield
        finally:
            self._in_cell = False

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self._in_cell and os.getpid() == self._pid:
            raise StopRun

    def _die(self, number: int, frame: FrameType | None) -> None:
        processes.kill_group(self._pid)

    def _listen(self, channel: socket.socket) -> None:
        while True:
            try:
                told = channel.recv(64)
            except OSError:
                told = b""
            if not told:
                processes.kill_group(self._pid)  # no agent, no run
            if Command.STOP in told:
                self._stop.requested = True


def _forget() -> None:
    """In a fork of the rank, such as a DataLoader worker: its end must not be the rank's."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(raise_signal(), signal.SIG_IGN)
