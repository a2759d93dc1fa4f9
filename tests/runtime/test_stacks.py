"""Stacks of a process, taken from outside by its agent's end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jupyter_train.runtime.processes import children, is_stopped
from jupyter_train.runtime.stacks import StacksFile, arranged

#: What a process does for ever once it has said that it is ready; `where` is the line that names it.
DOING = {
    "a loop": "def where():\n    while True: pass\nwhere()",
    "sleep": "import time\ndef where():\n    time.sleep(600)\nwhere()",
    "a lock": "import threading\nlock = threading.Lock()\nlock.acquire()\ndef where():\n    lock.acquire()\nwhere()",
    "C with the interpreter's lock": "import ctypes\ndef where():\n    while True: ctypes.PyDLL(None).sleep(600)\nwhere()",
    "a queue": "import queue\ndef where():\n    queue.Queue().get()\nwhere()",
}
READY = """
import sys, threading
from jupyter_train.runtime.stacks import answer
answer(int(sys.argv[1]))
threading.Thread(target=lambda: threading.Event().wait(), name="beside", daemon=True).start()
print("ready", flush=True)
"""


@contextmanager
def process(code: str, *fds: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, *map(str, fds)]
    with subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        try:
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


@pytest.fixture
def file() -> Iterator[StacksFile]:
    made = StacksFile()
    yield made
    made.close()
    made.close()


def taken(file: StacksFile, pid: int, wanted: str, *, short: bool = False) -> str:
    """The stacks once the process has come to where it stays."""
    until = time.monotonic() + 20
    while wanted not in (text := file.take(pid, short=short)):
        assert time.monotonic() < until, text
    return text


@pytest.mark.parametrize("what", DOING)
def test_a_process_tells_where_all_its_threads_are_whatever_it_does(file: StacksFile, what: str) -> None:
    with process(READY + DOING[what], file.fd) as started:
        text = taken(file, started.pid, "in where")
        assert text.startswith("Current thread")
        assert text.index("in where") < text.index("\nThread "), "the main thread comes first"
        assert "wait" in text.partition("\nThread ")[2]
        assert started.poll() is None
        short = taken(file, started.pid, "in where", short=True)
        assert "\nThread " not in short


def test_what_takes_the_signal_is_not_disturbed(file: StacksFile) -> None:
    code = (
        READY + "import time\nbegan = time.monotonic()\ntime.sleep(1)\nprint(time.monotonic() - began >= 1)"
    )
    with process(code, file.fd) as started:
        while started.poll() is None:
            file.take(started.pid)
        assert started.stdout is not None
        assert started.stdout.read() == "True\n"


def test_a_process_that_never_heard_of_the_signal_is_left_alone(file: StacksFile) -> None:
    with process("import time\nprint('ready', flush=True)\ntime.sleep(600)", file.fd) as started:
        assert "does not answer" in file.take(started.pid)
        assert started.poll() is None


def test_a_stopped_process_is_said_to_be_stopped_and_stays_so(file: StacksFile) -> None:
    with process(READY + DOING["sleep"], file.fd) as started:
        os.kill(started.pid, signal.SIGSTOP)
        until = time.monotonic() + 20
        while not is_stopped(started.pid):
            assert time.monotonic() < until
        assert "is stopped" in file.take(started.pid)
        assert is_stopped(started.pid)


def test_of_a_process_that_has_ended_nothing_is_asked(file: StacksFile) -> None:
    with process(READY + DOING["sleep"], file.fd) as started:
        started.kill()
        started.wait()
        assert file.take(started.pid) == "The process has ended."


def test_workers_of_the_process_are_asked_too(file: StacksFile) -> None:
    code = (
        READY
        + "import os, time\ndef below():\n    time.sleep(600)\ndef where():\n    os.wait()\n"
        + "if os.fork() == 0: below()\nelse: where()"
    )
    with process(code, file.fd) as started:
        taken(file, started.pid, "in where")
        text = taken(file, started.pid, "in below")
        assert text.index("in where") < text.index("started by the rank") < text.index("in below")
        for child in children(started.pid):
            os.kill(child, signal.SIGKILL)


def test_nothing_is_made_of_a_text_without_stacks() -> None:
    assert arranged("") == ""
    assert arranged("Fatal Python error") == ""
