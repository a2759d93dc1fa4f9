"""Zygotes that are forks of a stem, asked for by a launcher."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from jupyter_train.runtime.launcher import ForkLauncher, zygote_environ
from jupyter_train.runtime.processes import is_running, process_name
from jupyter_train.runtime.stem import STEM, ask, listen
from tests.runtime.test_launcher import Told, null_fds, until

PROGRAM = "import sys; from jupyter_train.runtime.stem import run; run(int(sys.argv[1]), int(sys.argv[2]))"


@contextmanager
def stem() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its name, and its process."""
    name = f"jupyter-train-test-{secrets.token_hex(8)}"
    with listen(name) as listening:
        command = [sys.executable, "-c", PROGRAM, str(listening.fileno()), str(os.getpid())]
        environ = zygote_environ(os.environ)
        with subprocess.Popen(command, pass_fds=[listening.fileno()], env=environ) as process:
            try:
                yield name, process
            finally:
                process.kill()


def test_nobody_is_asked_where_there_is_no_stem() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert not ask("jupyter-train-test-nobody", theirs, {}, [])


@pytest.mark.timeout(120)
def test_zygotes_are_forks_of_the_stem_live_without_it_and_are_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene() -> None:
        told = Told()
        with stem() as (name, process):
            monkeypatch.setenv(STEM, name)
            monkeypatch.setenv("OF_THIS_WORKER", "1")
            launcher = ForkLauncher(told)
            launcher.start()
            try:
                await until(lambda: told.ready == [True])
                first = launcher.pid
                assert first is not None
                assert psutil.Process(first).ppid() == process.pid
                assert process_name(first) == "zygote"
                assert len(os.listdir(f"/proc/{first}/task")) == 1

                fds, opened = null_fds()  # a job that cannot be read: the rank says so and ends
                rank = await launcher.launch("one", {"JUPYTER_TRAIN_RUN": "r"}, fds)
                await until(lambda: "one" in told.exited)
                assert os.waitstatus_to_exitcode(told.exited["one"]) == 70
                assert not is_running(rank)

                os.kill(first, signal.SIGKILL)
                await until(lambda: told.ready == [True, False, True])
                second = launcher.pid
                assert second is not None
                assert second != first
                assert psutil.Process(second).ppid() == process.pid

                process.kill()
                process.wait()
                rank = await launcher.launch("two", {}, fds)
                for fd in opened:
                    os.close(fd)
                assert rank > 0
                await until(lambda: "two" in told.exited)
                assert told.ready == [True, False, True], "the stem is not missed"
            finally:
                await launcher.close()
            assert not is_running(second)

    asyncio.run(scene())
