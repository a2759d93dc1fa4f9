"""A rank's link to its agent, without a rank."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from jupyter_train.runtime.job import Job
from jupyter_train.runtime.launcher import RankFds
from jupyter_train.runtime.link import RankLink
from jupyter_train.runtime.relay import Relay

JOB = Job(
    spec={"run_id": "20260101-000000-aaaaaa"},
    attempt=1,
    rank=0,
    local_rank=0,
    world_size=1,
    local_world_size=1,
    master_host="",
    master_port=0,
    home="/nowhere",
    worker="w0",
    cores=1,
    device_index=0,
    unset=(),
)


class NeverReady:
    """A launcher whose zygote does not come up."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def launch(self, key: str, marks: Mapping[str, str], fds: RankFds) -> int:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    def kill(self, pid: int) -> None:
        raise AssertionError


class Owner:
    def __init__(self) -> None:
        self.ended: list[str] = []

    def rank_ready(self, link: RankLink) -> None:
        raise AssertionError

    def rank_ended(self, link: RankLink, cause: Any) -> None:
        self.ended.append(cause.kind)


@pytest.mark.timeout(20)
def test_a_rank_that_is_lost_before_it_was_launched_does_not_hold_the_worker() -> None:
    asyncio.run(_lost_before_it_was_launched())


async def _lost_before_it_was_launched() -> None:
    owner, launcher = Owner(), NeverReady()
    relay = Relay(lambda message: None, run_id="r", attempt=1)
    link = RankLink(JOB, launcher=launcher, relay=relay, owner=owner)  # type: ignore[arg-type]
    launching = asyncio.create_task(link.launch(None))
    await launcher.asked.wait()
    link.lost("the process that ranks are forked from ended")  # its pipes are open, and nobody writes
    assert owner.ended == ["lost"]
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching


@pytest.mark.timeout(20)
@pytest.mark.parametrize("nth", range(1, 5))
def test_a_launch_for_which_there_are_too_few_descriptors_leaves_none_open(
    nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count(1)

    def limited(make: Any) -> Any:
        def one(*args: Any) -> Any:
            if next(made) == nth:
                raise OSError(errno.EMFILE, "Too many open files")
            return make(*args)

        return one

    async def scene() -> None:
        relay = Relay(lambda message: None, run_id="r", attempt=1)
        link = RankLink(JOB, launcher=NeverReady(), relay=relay, owner=Owner())  # type: ignore[arg-type]
        before = os.listdir("/proc/self/fd")
        monkeypatch.setattr(os, "pipe", limited(os.pipe))
        monkeypatch.setattr(os, "memfd_create", limited(os.memfd_create))
        with pytest.raises(OSError, match="Too many open files"):
            await link.launch(None)
        assert set(os.listdir("/proc/self/fd")) <= set(before)

    asyncio.run(scene())


class Forked(NeverReady):
    """A launcher whose ranks are there at once."""

    async def launch(self, key: str, marks: Mapping[str, str], fds: RankFds) -> int:
        return 2**31 - 1  # no process has such a number

    def kill(self, pid: int) -> None:
        return None


@pytest.mark.parametrize(("told", "cause"), [(None, "signal"), ("fail", "signal"), ("kill", "stopped")])
def test_only_a_signal_of_our_own_counts_as_being_stopped(told: Any, cause: str) -> None:
    # A rank that is lost makes its peers fail, and then all are told to end: that must not hide how it was lost.
    async def scene() -> None:
        owner = Owner()
        relay = Relay(lambda message: None, run_id="r", attempt=1)
        link = RankLink(JOB, launcher=Forked(), relay=relay, owner=owner)  # type: ignore[arg-type]
        await link.launch(None)
        if told is not None:
            link.end(told)
        link.exited(signal.SIGKILL)  # a wait status: ended by that signal
        assert owner.ended == [cause]

    asyncio.run(scene())
