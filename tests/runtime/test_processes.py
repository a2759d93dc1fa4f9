"""Marks, orphans and groups, on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from jupyter_train.runtime import processes

MARKS = {
    "JUPYTER_TRAIN_RUN": "20261122-101010-abcdef",
    "JUPYTER_TRAIN_ATTEMPT": "1",
    "RANK": str(os.getpid()),
}

FORKING = """
import os, sys, time
from jupyter_train.runtime import processes
marks = dict(arg.split("=") for arg in sys.argv[1:])
pid = os.fork()
if pid == 0:
    processes.write_marks(marks)
    os.environ["LATER"] = "1"
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(20)
os.waitpid(pid, 0)
"""


@pytest.fixture
def forking() -> Iterator[tuple[int, int]]:
    """Process ids of a padded parent and its marked fork."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING, *(f"{k}={v}" for k, v in MARKS.items())],
        env={**os.environ, processes.PAD: processes.PAD_VALUE},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        yield process.pid, child
        processes.kill_group(child)


def environ(pid: int) -> list[str]:
    with open(f"/proc/{pid}/environ") as file:
        return file.read().split("\0")


def test_a_fork_shows_its_marks_and_its_parent_does_not(forking: tuple[int, int]) -> None:
    parent, child = forking
    assert {f"{k}={v}" for k, v in MARKS.items()} <= set(environ(child))
    assert not any("JUPYTER_TRAIN_RUN" in entry for entry in environ(parent))
    assert f"HOME={os.environ.get('HOME', '')}" in [*environ(child), "HOME="]


def test_marked_processes_are_found_and_killed(forking: tuple[int, int]) -> None:
    _, child = forking
    assert list(processes.marked(MARKS)) == [child]
    assert list(processes.marked({**MARKS, "RANK": "none"})) == []
    processes.kill_marked(MARKS)
    assert not processes.is_running(child)


def test_without_a_pad_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(processes.PAD, raising=False)
    processes.write_marks(MARKS)
    assert "JUPYTER_TRAIN_RUN=20261122-101010-abcdef" not in environ(os.getpid())


def test_a_group_dies_with_its_leader() -> None:
    leader = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with leader:
        assert leader.stdout is not None
        member = int(leader.stdout.readline())
        processes.kill_group(leader.pid)
        assert leader.wait(5) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while processes.is_running(member):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killing_who_is_gone_does_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    processes.kill_group(process.pid)


def test_children_of_a_process_that_is_gone_are_none() -> None:
    assert processes.children(2**22 + 1) == ()
