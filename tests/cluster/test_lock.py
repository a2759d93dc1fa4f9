"""One start at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from jupyter_train.cluster.lock import StartLock, start_lock

HOLD = """
import sys
from jupyter_train.cluster.lock import StartLock, start_lock
with start_lock("local") as locked:
    print(bool(locked), flush=True)
    sys.stdin.readline()
"""


def test_a_second_one_waits_and_nothing_is_left(home: Path) -> None:
    with start_lock("local") as locked:
        assert locked
        with start_lock("local", wait_s=0) as second:
            assert not second
        with start_lock("other", wait_s=0) as other:
            assert other
    with start_lock("local", wait_s=0) as again:
        assert again
    assert list((home / "clusters").iterdir()) == []


def test_it_ends_with_its_process(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with start_lock("local", wait_s=0) as locked:
            assert not locked
        holder.kill()
        holder.wait()
    with start_lock("local", wait_s=5) as locked:
        assert locked


def test_it_is_taken_over_when_the_holder_lets_go(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.communicate("\n")
    with start_lock("local", wait_s=5) as locked:
        assert locked
    assert list((home / "clusters").iterdir()) == []


def test_a_process_that_shares_it_keeps_it_when_the_first_one_leaves(home: Path) -> None:
    with start_lock("local") as first:
        assert first.handle is not None
        shared = StartLock(first.path, os.dup(first.handle))
        first.given_away = True
    with start_lock("local", wait_s=0) as second:
        assert not second
    shared.release()
    with start_lock("local", wait_s=0) as third:
        assert third
    assert list((home / "clusters").iterdir()) == []


def test_letting_go_late_leaves_the_next_holders_file_alone(home: Path) -> None:
    with start_lock("local") as first:
        assert first.handle is not None
        shared = StartLock(first.path, os.dup(first.handle))
        first.release()
        with start_lock("local", wait_s=0) as second:
            assert second
            shared.release()
            with start_lock("local", wait_s=0) as third:
                assert not third
