"""What a test may not leave behind: threads and child processes of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

#: Threads that libraries start once and keep for the life of the process.
KEPT_THREADS = (
    "MainThread",
    "pytest_timeout",  # the timer of the test itself
    "Dask-Offload",  # distributed.utils: serialisation
    "Profile",  # distributed.profile
    "TCP-Executor",  # distributed.comm.tcp
    "asyncio_",  # executor of an event loop, named by the standard library
    "IPythonHistorySavingThread",
)
#: Helper processes of the standard library that serve the whole process.
KEPT_PROCESSES = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What is alive at one moment."""

    threads: frozenset[threading.Thread]
    children: frozenset[int]  #: pids


def census() -> Census:
    """The threads and direct children of this process, without those that are kept for good."""
    threads = (t for t in threading.enumerate() if not t.name.startswith(KEPT_THREADS))
    return Census(threads=frozenset(threads), children=frozenset(_children()))


def _children() -> Iterable[int]:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                continue
            if not any(kept in " ".join(child.cmdline()) for kept in KEPT_PROCESSES):
                yield child.pid


def leaked(before: Census, now: Census) -> Census:
    """What is in ``now`` and was not there ``before``."""
    return Census(threads=now.threads - before.threads, children=now.children - before.children)


def wait_for_leaks(
    before: Census,
    *,
    grace_s: float = 15.0,  # a busy machine imports matplotlib for seconds
    take: Callable[[], Census] = census,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Census:
    """What is still there after a grace in which things that are ending may end."""
    deadline = clock() + grace_s
    while True:
        left = leaked(before, take())
        if not (left.threads or left.children) or clock() >= deadline:
            return left
        sleep(0.02)


def describe(left: Census) -> str:
    """One line for each thing that was left behind."""
    lines = [f"thread {thread.name!r}" for thread in left.threads]
    for pid in left.children:
        with contextlib.suppress(psutil.Error):
            lines.append(f"process {pid}: {' '.join(psutil.Process(pid).cmdline())[:200]}")
    return "\n".join(sorted(lines))
