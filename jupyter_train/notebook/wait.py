"""Waiting for a run in the cell's main thread, so that ■ always gets through.

The first interrupt asks the run to stop and goes on waiting, since the names
it had bound are to come back; the second has its processes killed; a third
lets go of a cluster that does not answer. What talks to the cluster is done on
other threads: an interrupt must never land in the middle of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

# Signals reach a waiting main thread at once; the period only guards against
# a platform where they do not.
_PERIOD_S = 0.25
INTERRUPTS_UNTIL_LETTING_GO = 3


def wait_interruptibly(done: threading.Event, interrupted: Callable[[int], None]) -> int:
    """Waits for ``done``; returns how many interrupts came meanwhile.

    ``interrupted(n)`` is called at the nth; after the third the wait is over.
    Main thread only.
    """
    count = told = 0
    while True:
        try:
            while told < count:
                told += 1
                interrupted(told)
            if count >= INTERRUPTS_UNTIL_LETTING_GO:
                return count
            while not done.wait(_PERIOD_S):
                pass
            return count
        except KeyboardInterrupt:
            count += 1


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
