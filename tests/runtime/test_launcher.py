"""The launcher with a real zygote, without Dask."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from jupyter_train.errors import RunFailed
from jupyter_train.runtime import launcher as module
from jupyter_train.runtime.launcher import (
    ForkLauncher,
    RankFds,
    new_launcher,
    zygote_command,
    zygote_environ,
)
from jupyter_train.runtime.processes import PAD


class Told:
    """Keeps what a launcher tells."""

    def __init__(self) -> None:
        self.ready: list[bool] = []
        self.exited: dict[str, int] = {}
        self.lost: list[str] = []

    def launcher_ready(self, ready: bool) -> None:
        self.ready.append(ready)

    def rank_exited(self, key: str, status: int) -> None:
        self.exited[key] = status

    def ranks_lost(self, text: str) -> None:
        self.lost.append(text)


async def until(predicate: Any) -> None:
    async with asyncio.timeout(60):
        while not predicate():
            await asyncio.sleep(0.01)


def null_fds() -> tuple[RankFds, list[int]]:
    opened = [os.open(os.devnull, os.O_RDWR) for _ in range(4)]
    return RankFds(stdout=opened[0], stderr=opened[1], channel=opened[2], job=opened[3]), opened


def environ_of(pid: int) -> dict[str, str]:
    raw = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in raw if "=" in entry)


def test_a_zygote_is_started_without_what_slows_training_down() -> None:
    environ = zygote_environ({"MALLOC_TRIM_THRESHOLD_": "65536", "HOME": "/h"})
    assert "MALLOC_TRIM_THRESHOLD_" not in environ
    assert environ["HOME"] == "/h"
    assert environ["PYTHONHASHSEED"] == "0"
    assert PAD in environ


def test_a_hash_seed_of_the_user_is_kept() -> None:
    assert zygote_environ({"PYTHONHASHSEED": "7"})["PYTHONHASHSEED"] == "7"


def test_a_zygote_has_the_module_path_of_its_worker() -> None:
    assert zygote_command(5, ["/a", "/b"])[-1] == '["/a", "/b"]'


def test_other_platforms_are_refused_with_a_way_out() -> None:
    launcher = new_launcher(Told(), platform="darwin")
    fds, opened = null_fds()
    for fd in opened:
        os.close(fd)
    with pytest.raises(RunFailed, match="connect to a cluster on Linux"):
        asyncio.run(launcher.launch("k", {}, fds))


def test_a_zygote_has_one_thread_forks_tells_exits_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")

    async def scene() -> None:
        told = Told()
        launcher = ForkLauncher(told)
        launcher.start()
        assert launcher.pid is not None
        try:
            await until(lambda: told.ready == [True])
            assert len(os.listdir(f"/proc/{launcher.pid}/task")) == 1
            assert "MALLOC_TRIM_THRESHOLD_" not in environ_of(launcher.pid)
            fds, opened = null_fds()  # a job that cannot be read: the rank says so and ends
            pid = await launcher.launch("one", {"JUPYTER_TRAIN_RUN": "r"}, fds)
            for fd in opened:
                os.close(fd)
            assert pid > 0
            await until(lambda: told.exited)
            assert os.waitstatus_to_exitcode(told.exited["one"]) == 70
        finally:
            await launcher.close()
            await launcher.close()
        assert not Path(f"/proc/{launcher.pid}").exists()
        assert not told.lost

    asyncio.run(scene())


def test_a_zygote_that_never_comes_up_is_told_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_DELAYS_S", (0.0,))
    monkeypatch.setattr(module, "zygote_command", lambda *_: ["/bin/false"])

    async def scene() -> None:
        told = Told()
        launcher = ForkLauncher(told)
        launcher.start()
        fds, opened = null_fds()
        try:
            with pytest.raises(RunFailed, match="log of the worker"):
                await asyncio.wait_for(launcher.launch("one", {}, fds), 30)
        finally:
            for fd in opened:
                os.close(fd)
            await launcher.close()
        assert told.lost

    asyncio.run(scene())


def test_a_zygote_that_is_killed_is_replaced() -> None:
    async def scene() -> None:
        told = Told()
        launcher = ForkLauncher(told)
        launcher.start()
        first = launcher.pid
        assert first is not None
        try:
            await until(lambda: told.ready == [True])
            os.kill(first, signal.SIGKILL)
            await until(lambda: told.ready == [True, False, True])
            assert launcher.pid != first
            assert "signal 9" in told.lost[0] or "lost" in told.lost[0]
        finally:
            await launcher.close()

    asyncio.run(scene())
