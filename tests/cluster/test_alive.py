"""Numbers of processes are used again; a process is not."""

from __future__ import annotations

import os
import subprocess
import sys

from jupyter_train.cluster.alive import Process, started_at, this_process


def test_this_process_lives() -> None:
    assert this_process().is_alive


def test_a_number_that_another_process_has_now_is_another_process() -> None:
    assert not Process(pid=os.getpid(), started="boot:0").is_alive


def test_one_that_ended_does_not_live_even_as_a_zombie() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = Process(pid=child.pid, started=started_at(child.pid))
        assert process.is_alive
        assert not process.wait(0.05)
        process.kill()
        assert process.wait(5)  # nobody has waited for it: it is a zombie
    assert not process.send(15)


def test_no_process_has_no_start() -> None:
    assert started_at(0) == ""
    assert not Process(pid=0, started="").is_alive
