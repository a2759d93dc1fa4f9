"""Waiting for a run in the cell's main thread, so that ■ always gets through.

The first interrupt asks the run to stop and goes on waiting, since the names
it had bound are to come back; the second has its processes killed; a third
lets go of a cluster that does not answer. Whoever restarts or shuts down a
kernel sends it an interrupt as well, a moment before the request: such a run
goes on without its kernel.

While a run goes on, interrupts are counted instead of raised: an exception
between any two lines could leave a run that nobody waits for. What talks to
the cluster is done on other threads, so that the count is looked at soon.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

# How soon an interrupt is noticed: a handler runs at once but does not end the wait of a lock.
_PERIOD_S = 0.1
UNTIL_LETTING_GO = 3
# What follows an interrupt that is part of a restart arrives within milliseconds, later on a busy machine.
RESTART_S = 0.25


class Interrupts:
    """Counts interrupts of the main thread between entering and leaving; elsewhere there are none to count."""

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _pressed(self, number: int, frame: object) -> None:
        self.count += 1


def wait_for(
    done: threading.Event,
    interrupts: Interrupts,
    told: Callable[[int], None],
    *,
    kernel_ends: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Waits for ``done``; ``told(n)`` is called for the nth interrupt.

    False: a third one ended the wait, or the kernel is being shut down.
    """
    heard = 0
    first = 0.0  #: when the first interrupt was seen
    while not done.wait(_PERIOD_S):
        if kernel_ends():
            return False
        if heard == 0 and interrupts.count == 1:
            first = first or clock()
            if clock() - first < RESTART_S:
                continue
        while heard < interrupts.count:
            heard += 1
            if heard >= UNTIL_LETTING_GO:
                return False
            told(heard)
    return True


def in_background(call: Callable[[], object], *, failed: Callable[[Exception], object]) -> threading.Thread:
    """Runs ``call`` on a daemon thread; ``failed`` hears of its exception, on that thread."""

    def run() -> None:
        try:
            call()
        except Exception as error:
            failed(error)

    thread = threading.Thread(target=run, name="jupyter-train-stop", daemon=True)
    thread.start()
    return thread
