"""An agent's end of one shadow: starts it, bounds it, passes on what it found, and tidies up behind it.

Lives in the worker's event loop; nothing here blocks it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from jupyter_train.errors import RunFailed
from jupyter_train.record.proof import unchecked
from jupyter_train.runtime import processes
from jupyter_train.runtime.channel import FrameKind, FrameReader
from jupyter_train.runtime.job import Job, Shadowing
from jupyter_train.runtime.launcher import Launcher, RankFds
from jupyter_train.runtime.proof.recording import recording_file

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 16
SCRATCH = "jupyter-train-shadow-"  #: beginning of the names of scratch folders
#: A shadow may take so many times as long as rank 0 took to its first step that is compared, and these seconds more:
#: on a machine whose cores are all busy it gets next to nothing of them.
TIMES, MORE_S, MOST_S = 5.0, 300.0, 1800.0
#: At the end of a run it is waited for: this part of the run's time, within these bounds.
PART_OF_RUN, LEAST_WAIT_S, MOST_WAIT_S = 0.1, 1.0, 3.0
ASKED_WAIT_S = 20.0  #: where the user has asked for a verdict


def patience_s(took_s: float) -> float:
    """Seconds that a shadow has, where rank 0 took ``took_s`` to its first step that is compared."""
    return min(MOST_S, MORE_S + TIMES * took_s)


def wait_s(run_s: float, *, is_asked: bool) -> float:
    """Seconds that the end of a run of ``run_s`` waits for its shadow."""
    return ASKED_WAIT_S if is_asked else min(MOST_WAIT_S, max(LEAST_WAIT_S, PART_OF_RUN * run_s))


#: A shadow is started where so many times its rank's memory are free, and this much is left then.
MEMORY_TIMES, MEMORY_LEFT_BYTES = 1.5, 512 << 20


class Keeper:
    """One shadow of one attempt.

    Args:
        job: rank 0's.
        tell: passes on the payload of a verdict.
        gone: called once, when the process has ended or never was.
    """

    def __init__(
        self,
        job: Job,
        *,
        launcher: Launcher,
        tell: Callable[[dict[str, Any]], None],
        gone: Callable[[Keeper], None],
    ) -> None:
        self._rank_job = job
        self._launcher = launcher
        self._tell = tell
        self._gone = gone
        self.key = f"{job.spec['run_id']}/{job.attempt}/shadow"
        self.pid = 0
        self.began = asyncio.get_running_loop().time()  #: when the rank asked for it
        self._recording = recording_file(job.folder, job.attempt)
        self._scratch = Path(tempfile.gettempdir()) / f"{SCRATCH}{job.spec['run_id']}-{job.attempt}"
        self._channel: socket.socket | None = None
        self._frames = FrameReader()
        self._told = False
        self._over = False
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._waiting: list[Callable[[], None]] = []

    def start(self, *, first: int, took_s: float, began: float) -> None:
        """Fork it, in the background. See `Shadowing`; rank 0 took ``took_s`` to its first step that is compared."""
        loop = asyncio.get_running_loop()
        limit_s = patience_s(took_s)
        reason = f"one process took longer than {limit_s:.0f} s to the first steps"
        self._timers.append(loop.call_later(limit_s, self.end, reason))
        self._task = loop.create_task(self._launch(first, began))

    async def _launch(self, first: int, began: float) -> None:
        shadowing = Shadowing(
            first=first,
            ranks=self._rank_job.world_size,
            recording=str(self._recording),
            began=began,
            scratch=str(self._scratch),
        )
        job = replace(
            self._rank_job,
            local_rank=0,
            world_size=1,
            local_world_size=1,
            master_host="127.0.0.1",
            master_port=0,
            shadow=shadowing,
        )
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._channel = ours
        described = job.to_file()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            fds = RankFds(stdout=nowhere, stderr=nowhere, channel=theirs.fileno(), job=described)
            self.pid = await self._launcher.launch(self.key, job.marks, fds)
        except (RunFailed, asyncio.CancelledError) as error:
            self._finish("it could not be started" if isinstance(error, RunFailed) else "")
            return
        finally:
            theirs.close()
            os.close(described)
            os.close(nowhere)
        if self._over:
            self._launcher.kill(self.pid)
        elif self._channel is not None:
            asyncio.get_running_loop().add_reader(ours, self._read)

    def _read(self) -> None:
        while self._channel is not None:
            try:
                data = self._channel.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(self._channel)
                return
            for kind, body in self._frames.feed(data):
                if kind is FrameKind.PROOF:
                    self._say(json.loads(body))

    def _say(self, payload: dict[str, Any]) -> None:
        if not self._told:
            self._told = True
            self._tell(payload)

    def end(self, reason: str = "") -> None:
        """Kill it, if it lives; ``reason`` is why there is no verdict, "" where nobody asks."""
        if self._over:
            return
        if reason:
            self._say(unchecked(reason).to_payload())
        self._told = True
        if self.pid:
            self._launcher.kill(self.pid)
        elif self._task is not None:
            self._task.cancel()
        else:
            self._finish("")

    def exited(self, status: int) -> None:
        """The process was reaped, and all it left behind is dead."""
        if self._channel is not None:
            self._read()
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._finish(f"the process that runs the cell alone {how}")

    def lost(self) -> None:
        """Nobody can tell how the process ended; the caller has killed it."""
        self._finish("the process that runs the cell alone is gone")

    def when_gone(self, run_s: float, call: Callable[[], None]) -> None:
        """The ranks are through: ``call`` when it is gone, which is soon now."""
        if self._over:
            call()
            return
        self._waiting.append(call)
        if self.pid:
            processes.come_forward(self.pid)
        loop = asyncio.get_running_loop()
        # Where nobody asked a run that was too short for it is no news.
        is_asked = bool(self._rank_job.spec.get("check"))
        reason = "the run was over before one process had done its first steps" if is_asked else ""
        self._timers.append(loop.call_later(wait_s(run_s, is_asked=is_asked), self.end, reason))

    def _finish(self, why: str) -> None:
        if self._over:
            return
        if why:
            self._say(unchecked(why).to_payload())
        self._over = self._told = True
        for timer in self._timers:
            timer.cancel()
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None
        asyncio.get_running_loop().run_in_executor(None, _tidy, self._scratch, self._recording)
        self._gone(self)
        for call in self._waiting:
            call()


def _tidy(scratch: Path, recording: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    recording.unlink(missing_ok=True)


def too_little_memory(pid: int) -> str:
    """Why a second process as large as ``pid`` does not fit on this host; "" where it does."""
    try:
        needed = psutil.Process(pid).memory_info().rss
        free = psutil.virtual_memory().available
    except psutil.Error:
        return ""
    if free > MEMORY_TIMES * needed + MEMORY_LEFT_BYTES:
        return ""
    return f"memory is short ({free / 1e9:.1f} GB free)"
