"""What ranks use of their host."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping

from jupyter_train.runtime import usage
from jupyter_train.runtime.usage import Meter, Reading, UsageSampler


def test_a_busy_child_counts_for_its_rank() -> None:
    shell = subprocess.Popen(["sh", "-c", "sh -c 'while :; do :; done' & wait"], start_new_session=True)
    try:
        meter = Meter(shell.pid)
        meter.read()
        threading.Event().wait(0.5)
        reading = meter.read()
    finally:
        os.killpg(shell.pid, 9)
        shell.wait()
    assert reading is not None
    assert 0.02 < reading.cpu_cores < 1.5
    assert reading.memory_bytes > 100_000


def test_a_rank_that_is_gone_has_no_reading() -> None:
    process = subprocess.Popen(["sleep", "60"])
    meter = Meter(process.pid)
    process.kill()
    process.wait()
    assert meter.read() is None


def test_a_rank_that_has_ended_unread_has_no_reading() -> None:
    process = subprocess.Popen(["sleep", "60"])
    meter = Meter(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert meter.read() is None, "0 MB is no reading"
    process.wait()


def test_the_sampler_lives_as_long_as_there_are_ranks() -> None:
    told = threading.Event()
    seen: list[Mapping[int, Reading]] = []

    def tell(readings: Mapping[int, Reading]) -> None:
        seen.append(readings)
        told.set()

    sampler = UsageSampler(tell)
    sampler.watch(os.getpid())
    assert told.wait(10 * usage.INTERVAL_S)
    sampler.forget(os.getpid())
    sampler.close()
    assert set(seen[0]) == {os.getpid()}


def test_a_process_that_is_gone_is_not_watched() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    sampler = UsageSampler(lambda _: None)
    sampler.watch(process.pid)
    assert not [t for t in threading.enumerate() if t.name == "jupyter-train-usage"]
