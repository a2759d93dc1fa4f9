"""An agent's end of one rank: its channel, its output pipes, its last word, and its end.

Lives in the worker's event loop; nothing here blocks it.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from jupyter_train.errors import RunFailed
from jupyter_train.record import Event, EventKind, pack_event
from jupyter_train.runtime.channel import Cause, Command, FrameKind, FrameReader, split_events
from jupyter_train.runtime.escalation import Due, Mode, Step, kill_after, plan
from jupyter_train.runtime.interrupts import raise_signal
from jupyter_train.runtime.job import Job
from jupyter_train.runtime.launcher import Launcher, RankFds
from jupyter_train.runtime.oom import oom_kills
from jupyter_train.runtime.relay import Relay
from jupyter_train.runtime.stacks import StacksFile
from jupyter_train.runtime.text import OutputBuffer

READ_BYTES = 1 << 18
DRAIN_BYTES = 1 << 24  #: of a pipe at the end; whoever still writes to it after the rank's death is cut off
OUTPUT_INTERVAL_S = 0.1
TAIL_CHARACTERS = 16_000  #: of C-level stderr, told with a rank that died of a signal: a stack of 100 frames


class Owner(Protocol):
    """Whom a link tells."""

    def rank_ready(self, link: RankLink) -> None:
        """The rank begins the cell."""

    def rank_waits(self, link: RankLink, on: int, hung: str) -> None:
        """The rank waits long for rank ``on``, which hangs in the way that ``hung`` says, if it does."""

    def proof_wanted(self, link: RankLink, told: Mapping[str, Any]) -> None:
        """The rank has recorded its first step, or says why there will be no proof."""

    def rank_ended(self, link: RankLink, cause: Cause) -> None:
        """The rank is gone and all its events were passed on."""


class RankLink:
    """One rank of one attempt, seen from its agent."""

    def __init__(self, job: Job, *, launcher: Launcher, relay: Relay, owner: Owner) -> None:
        self.job = job
        self.pid = 0  #: 0 until it is forked
        self.began = 0.0  #: when its launch began, by the loop's clock
        self.ended = False
        self._launcher = launcher
        self._relay = relay
        self._owner = owner
        self._frames = FrameReader()
        self._channel: socket.socket | None = None
        self._pipes: dict[int, tuple[str, codecs.IncrementalDecoder]] = {}
        self._stacks: StacksFile | None = None
        self._sources: dict[int, Callable[[], None]] = {}  # by descriptor, until its end: who reads from it
        self._is_paused = False
        self._text = OutputBuffer()
        self._text_timer: asyncio.TimerHandle | None = None
        self._tail = ""
        self._oom_kills = oom_kills()
        self._cause: Cause | None = None
        self._told_to: Mode | None = None
        self._told_at = 0.0
        self._sent: set[int] = set()  #: signals, by us
        self._left_at: float | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._launching: asyncio.Task[int] | None = None
        self._asking = asyncio.Lock()

    @property
    def key(self) -> str:
        """Names the rank among all of its agent."""
        return f"{self.job.spec['run_id']}/{self.job.attempt}/{self.job.rank}"

    async def launch(self, listen: int | None) -> int:
        """Fork the rank; gives its process id.

        Raises:
            RunFailed: it could not be forked, or was told to end before it was.
        """
        self.began = asyncio.get_running_loop().time()
        with ExitStack() as theirs:
            return await self._launch(listen, self._make_ends(theirs))

    def _make_ends(self, theirs: ExitStack) -> RankFds:
        """What the rank is born with, closed with ``theirs``; our ends are kept.

        Raises:
            OSError: this process has too many open files, and no more for it than before.
        """
        with ExitStack() as ours:
            channel, other = socket.socketpair()
            theirs.callback(other.close)
            ours.callback(channel.close)
            pipes: dict[int, tuple[str, codecs.IncrementalDecoder]] = {}
            written = {}
            for stream in ("stdout", "stderr"):
                end, written[stream] = os.pipe()
                theirs.callback(os.close, written[stream])
                ours.callback(os.close, end)
                pipes[end] = (stream, codecs.getincrementaldecoder("utf-8")("backslashreplace"))
            stacks = StacksFile()
            ours.callback(stacks.close)
            job = self.job.to_file()
            theirs.callback(os.close, job)
            # At once: what ends before it is launched is read to its end too, and we hold the other ends until then.
            for end in (channel.fileno(), *pipes):
                os.set_blocking(end, False)
            ours.pop_all()
        self._channel, self._pipes, self._stacks = channel, pipes, stacks
        return RankFds(**written, channel=other.fileno(), job=job, stacks=stacks.fd)

    async def _launch(self, listen: int | None, fds: RankFds) -> int:
        loop = asyncio.get_running_loop()
        try:
            born_with = replace(fds, listen=listen)
            self._launching = loop.create_task(self._launcher.launch(self.key, self.job.marks, born_with))
            self.pid = await self._launching
        except BaseException as error:
            self._close()
            if isinstance(error, asyncio.CancelledError) and self._told_to is not None:
                raise RunFailed("the run was stopped before this rank was started") from None
            raise
        if self._told_to is not None:
            self._kill()
        if not self.ended:
            assert self._channel is not None
            self._sources = {self._channel.fileno(): self._read_channel}
            for fd in self._pipes:
                self._sources[fd] = partial(self._read_pipe, fd)
            self._listen()
        return self.pid

    def end(self, mode: Mode) -> None:
        """Begin to end the rank; a harder mode replaces a softer one, a softer one changes nothing."""
        order: tuple[Mode | None, ...] = (None, "stop", "fail", "kill")
        if self.ended or order.index(mode) <= order.index(self._told_to):
            return
        self._cancel_timers()
        self._told_to = mode
        loop = asyncio.get_running_loop()
        self._told_at = loop.time()
        if not self.pid:
            if self._launching is not None:
                self._launching.cancel()
            return
        for due in plan(mode):
            if due.after_s == 0.0:
                self._do(due)
            else:
                self._timers.append(loop.call_later(due.after_s, self._do, due))

    async def stacks(self, *, short: bool) -> str:
        """The stacks of the rank's threads, or a sentence why they cannot be had; empty where it is gone.

        Args:
            short: the main thread's newest frames alone.
        """
        async with self._asking:
            file = self._stacks
            if file is None or not self.pid:
                return ""
            try:
                took = partial(file.take, self.pid, short=short)
                return await asyncio.get_running_loop().run_in_executor(None, took)
            finally:
                if self._stacks is None:  # it ended meanwhile, and left the file to us
                    file.close()

    def exited(self, status: int) -> None:
        """The process was reaped, and all it left behind is dead."""
        self._finish(self._cause or self._cause_of(status))

    def lost(self, text: str) -> None:
        """Nobody can tell how the process ended; the caller has killed it."""
        cause = Cause(kind="lost", text=text)
        self._finish(self._cause or (Cause(kind="stopped") if self._told_to else cause))

    def _do(self, due: Due) -> None:
        if self.ended or not self.pid:
            return
        left = None if self._left_at is None else self._left_at - self._told_at
        match due.step:
            case Step.ASK:
                self._say(Command.STOP)
            case Step.RAISE if left is None:
                self._sent.add(raise_signal())
                try:
                    os.kill(self.pid, raise_signal())
                except ProcessLookupError:
                    pass  # its end is on the way to us
            case Step.KILL:
                assert self._told_to is not None
                after = kill_after(self._told_to, left_after_s=left)
                if after <= due.after_s:
                    self._kill()
                else:
                    again = Due(after, Step.KILL)
                    loop = asyncio.get_running_loop()
                    self._timers.append(loop.call_at(self._told_at + after, self._do, again))

    def _kill(self) -> None:
        self._sent.add(signal.SIGKILL)
        self._launcher.kill(self.pid)

    def _say(self, command: Command) -> None:
        if self._channel is not None:
            try:
                self._channel.send(bytes([command]))
            except OSError:
                pass  # full or closed: the signal follows

    def _listen(self) -> None:
        self._is_paused = False
        for fd, read in self._sources.items():
            asyncio.get_running_loop().add_reader(fd, read)

    def _pause_if_full(self) -> None:
        """Read no more while the relay is full: then the rank, or whatever writes to its pipes, has to wait."""
        if self._is_paused or not self._relay.is_full:
            return
        self._is_paused = True
        for fd in self._sources:
            asyncio.get_running_loop().remove_reader(fd)
        self._relay.when_room(self._listen)

    def _forget_source(self, fd: int) -> None:
        self._sources.pop(fd, None)
        asyncio.get_running_loop().remove_reader(fd)

    def _read_channel(self, most: int = READ_BYTES) -> None:
        read = 0
        while self._channel is not None and read < most:
            try:
                data = self._channel.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self._forget_source(self._channel.fileno())
                break
            read += len(data)
            for kind, body in self._frames.feed(data):
                self._hear(kind, body)
        self._pause_if_full()

    def _hear(self, kind: FrameKind, body: bytes) -> None:
        match kind:
            case FrameKind.EVENTS | FrameKind.URGENT_EVENTS:
                self._relay.add(split_events(body), urgent=kind is FrameKind.URGENT_EVENTS)
            case FrameKind.READY:
                self._owner.rank_ready(self)
            case FrameKind.LEFT:
                self._left_at = asyncio.get_running_loop().time()
            case FrameKind.PROVE:
                self._owner.proof_wanted(self, json.loads(body))
            case FrameKind.WAITS:
                told = json.loads(body)
                self._owner.rank_waits(self, int(told["on"]), str(told["hung"]))
            case FrameKind.CAUSE:
                self._cause = Cause(**json.loads(body))

    def _read_pipe(self, fd: int, most: int = READ_BYTES) -> None:
        stream, decoder = self._pipes[fd]
        read = 0
        while read < most:
            try:
                data = os.read(fd, READ_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self._forget_source(fd)
                break
            read += len(data)
            text = decoder.decode(data)
            self._text.write(stream, text)
            if stream == "stderr":
                self._tail = (self._tail + text)[-TAIL_CHARACTERS:]
        if self._text.is_full:
            self._pass_text_on()
        elif read and self._text_timer is None:
            self._text_timer = asyncio.get_running_loop().call_later(OUTPUT_INTERVAL_S, self._pass_text_on)

    def _pass_text_on(self, *, everything: bool = False) -> None:
        if self._text_timer is not None:
            self._text_timer.cancel()
            self._text_timer = None
        events = [
            self.event(EventKind.LOG, {"stream": stream, "text": text})
            for stream, text in self._text.take(everything=everything)
        ]
        self._relay.add(events)
        self._pause_if_full()
        if not everything and self._text.waiting:
            self._text_timer = asyncio.get_running_loop().call_later(OUTPUT_INTERVAL_S, self._pass_text_on)

    def event(self, kind: EventKind, payload: Mapping[str, Any]) -> bytes:
        """A packed event about this rank that its agent tells."""
        return pack_event(
            Event(
                run_id=self.job.spec["run_id"],
                attempt=self.job.attempt,
                rank=self.job.rank,
                time=time.time(),
                kind=kind,
                payload=payload,
            )
        )

    def _cause_of(self, status: int) -> Cause:
        code = os.waitstatus_to_exitcode(status)
        # What was killed by others may be why the rest is being ended: its peers notice it sooner than we do.
        if self._told_to is not None and (code >= 0 or -code in self._sent):
            return Cause(kind="stopped")
        if code < 0:
            return Cause(kind="signal", signal=-code, text=self._tail, out_of_memory=self._was_oom(-code))
        return Cause(kind="exit", code=code, text=self._tail)

    def _was_oom(self, number: int) -> bool | None:
        now = oom_kills() if number == signal.SIGKILL else None
        if now is None or self._oom_kills is None:
            return None
        return now > self._oom_kills

    def _finish(self, cause: Cause) -> None:
        if self.ended:
            return
        self._read_channel(DRAIN_BYTES)
        cause = self._cause or cause
        for fd in self._pipes:
            self._read_pipe(fd, DRAIN_BYTES)
        self._pass_text_on(everything=True)
        self.ended = True
        self._cancel_timers()
        self._close()
        self._relay.flush()
        self._owner.rank_ended(self, cause)

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _close(self) -> None:
        for fd in list(self._sources):
            self._forget_source(fd)
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for fd in self._pipes:
            os.close(fd)
        self._pipes = {}
        stacks, self._stacks = self._stacks, None
        if stacks is not None and not self._asking.locked():
            stacks.close()
