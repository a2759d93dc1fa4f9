"""What counts as a sign of life of a rank that others wait for."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from jupyter_train.runtime.parallel.lookout import Progress
from jupyter_train.runtime.parallel.sites import Sites

NEVER = threading.Event()


def loop(over: threading.Event) -> None:
    while not over.is_set():
        pass


def asleep(over: threading.Event) -> None:
    while not over.is_set():
        time.sleep(0.001)


def locked(over: threading.Event) -> None:
    over.wait()


def queued(over: threading.Event) -> None:
    waiting: queue.Queue[int] = queue.Queue()
    while not over.is_set():
        try:
            waiting.get(timeout=0.001)
        except queue.Empty:
            continue


def counting(over: threading.Event) -> None:
    done = 0
    while not over.is_set():
        done += 1


def adding(over: threading.Event) -> None:
    total = torch.zeros(3)
    while not over.is_set():
        total += 1


def reading(over: threading.Event) -> None:
    def batches() -> Iterator[float]:
        value = 1.0
        while True:
            value *= 1.0000001
            yield value

    for _ in batches():
        if over.is_set():
            return


@contextmanager
def at_work(work: Callable[[threading.Event], None]) -> Iterator[Callable[[], int]]:
    """The function given looks at the thread that does ``work``; gives the number of its signs of life so far."""
    over, progress, sites = threading.Event(), Progress(), Sites(__file__)
    thread = threading.Thread(target=work, args=(over,))
    thread.start()

    def look() -> int:
        assert thread.ident is not None
        progress.look(sys._current_frames().get(thread.ident), sites)
        return progress.signs

    try:
        yield look
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("work", [loop, asleep, locked, queued])
def test_a_thread_that_waits_soon_gives_no_sign_of_life(work: Callable[[threading.Event], None]) -> None:
    with at_work(work) as look:
        until = time.monotonic() + 60
        quiet = 0
        while quiet < 200:  # of the few places it can be at, the last one may be seen late
            before = look()
            time.sleep(0.0005)
            quiet = quiet + 1 if look() == before else 0
            assert time.monotonic() < until


@pytest.mark.parametrize("work", [counting, adding, reading])
def test_a_thread_that_computes_goes_on_giving_them(work: Callable[[threading.Event], None]) -> None:
    with at_work(work) as look:
        until = time.monotonic() + 60
        while look() < 60:
            time.sleep(0.0005)
            assert time.monotonic() < until


def test_a_thread_that_is_gone_gives_none() -> None:
    progress = Progress()
    progress.look(None, Sites("<cell>"))
    assert progress.signs == 0
