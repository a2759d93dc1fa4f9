"""The check for what tests leave behind sees what it should, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit import leaks, processes


def waits_for(event: threading.Event) -> Callable[[], object]:
    return lambda: event.wait(30)


def test_a_thread_that_goes_on_is_a_leak() -> None:
    before, stop = leaks.census(), threading.Event()
    thread = threading.Thread(target=waits_for(stop), name="forgotten", daemon=True)
    thread.start()
    left = leaks.wait_for_leaks(before, grace_s=0)
    stop.set()
    thread.join()
    assert left.threads == {thread}
    assert "forgotten" in leaks.describe(left)


def test_a_thread_that_is_ending_is_waited_for() -> None:
    before, stop = leaks.census(), threading.Event()
    thread = threading.Thread(target=waits_for(stop), name="ending")
    thread.start()
    left = leaks.wait_for_leaks(before, sleep=lambda _: stop.set())
    assert not left.threads


def test_threads_that_libraries_keep_are_no_leaks() -> None:
    before, stop = leaks.census(), threading.Event()
    thread = threading.Thread(target=waits_for(stop), name="Dask-Offload_0", daemon=True)
    thread.start()
    left = leaks.wait_for_leaks(before, grace_s=0)
    stop.set()
    thread.join()
    assert not left.threads


def test_a_child_process_is_a_leak_until_it_has_ended() -> None:
    before = leaks.census()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = leaks.wait_for_leaks(before, grace_s=0)
    child.communicate()
    assert left.children == {child.pid}
    assert leaks.wait_for_leaks(before).children == frozenset()


@pytest.mark.skipif(sys.platform != "linux", reason="reads environments of other processes")
def test_processes_are_found_by_what_they_carry(home: Path) -> None:
    environment = {**os.environ, processes.RUN: "20260101-000000-abcdef"}
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment)
    try:
        assert child.pid in [p.pid for p in processes.processes_of_home(home)]
        assert [p.pid for p in processes.processes_of_runs("20260101-000000-abcdef")] == [child.pid]
        assert processes.processes_of_runs("20260101-000000-ffffff") == []
    finally:
        child.communicate()


def test_each_test_has_a_home_of_its_own(home: Path) -> None:
    assert os.environ["JUPYTER_TRAIN_HOME"] == str(home)
    assert list(home.iterdir()) == []
    assert len(str(home)) < 60
