"""How rank processes come into being: a seam of four methods, and the launcher for Linux behind it.

Everything here runs in the worker's event loop and does not block it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from jupyter_train.errors import RunFailed
from jupyter_train.runtime import processes
from jupyter_train.runtime.display import FIGURES
from jupyter_train.runtime.stem import STEM, ask
from jupyter_train.runtime.zygote import MESSAGE_BYTES

logger = logging.getLogger(__name__)

#: Set by Dask's Nanny; CPU training under it takes 1.5 to 2 times the CPU per step. Acts from the start of a process.
UNWANTED = frozenset({"MALLOC_TRIM_THRESHOLD_"})

DYING_S = 0.2  #: between the end of a process's files and its own
FAILURES_BORNE = 3  #: starts without success before a launch is told so instead of waiting
RESTART_DELAYS_S = (0.0, 0.5, 2.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFds:
    """What a rank is born with. The launcher does not close them."""

    stdout: int
    stderr: int
    channel: int
    job: int
    stacks: int | None = None  #: where it writes its stacks when it is asked
    listen: int | None = None


class Listener(Protocol):
    """Whom a launcher tells. Called in the event loop."""

    def launcher_ready(self, ready: bool) -> None:
        """Ranks can, or can no longer, be launched at once."""

    def rank_exited(self, key: str, status: int) -> None:
        """A rank's process and all that it left behind are dead; ``status`` as of ``os.wait``.

        May be called before ``launch`` has returned.
        """

    def ranks_lost(self, text: str) -> None:
        """The parent of all ranks died, and nobody will tell how they end: kill what still runs."""


class Launcher(Protocol):
    """Makes rank processes and ends them."""

    def start(self) -> None:
        """Get ready, in the background."""

    async def launch(self, key: str, marks: Mapping[str, str], fds: RankFds) -> int:
        """Start one rank; waits until the launcher is ready. Gives its process id.

        Raises:
            RunFailed: no process could be made, with the reason.
        """

    def kill(self, pid: int) -> None:
        """SIGKILL for a rank and its group."""

    async def close(self) -> None:
        """End every rank and the launcher itself. Closing twice does nothing."""


def zygote_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment a zygote is started with, from its worker's.

    Strings hash alike in every rank of every host: a set of names that the cell
    iterates must not have another order on each rank. Figures are drawn as in a notebook.
    """
    wanted = processes.without(environ, {*UNWANTED, STEM})
    return {"PYTHONHASHSEED": "0", "MPLBACKEND": FIGURES, **wanted, processes.PAD: processes.PAD_VALUE}


def zygote_command(fd: int, path: list[str]) -> list[str]:
    """The command that becomes a zygote, with this process's ``sys.path``."""
    program = (
        "import sys, json; sys.path[:] = json.loads(sys.argv[3]);"
        "from jupyter_train.runtime.zygote import run;"
        "run(int(sys.argv[1]), int(sys.argv[2]))"
    )
    return [sys.executable, "-c", program, str(fd), str(os.getpid()), json.dumps(path)]


class ForkLauncher:
    """Launches by asking a zygote to fork. Linux.

    ``start`` has to be called in a thread that lives as long as the process:
    the kernel tells the zygote when the thread that started it ends.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None  #: the zygote, where it is a child of ours
        self._forked = 0  #: the zygote's process id, where it is a fork of the stem
        self._socket: socket.socket | None = None
        self._answers = asyncio.Event()  # set while a launch need not wait: ready, in trouble or closed
        self._trouble = ""
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._failures = 0
        self._closed = False
        self._restart: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the zygote, once it is known."""
        return self._process.pid if self._process else self._forked or None

    def start(self) -> None:
        """Start the zygote; about 2 s later it is ready, or at once where the host has a stem of zygotes."""
        if self._closed:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environ = zygote_environ(os.environ)
        self._process, self._forked = None, 0
        with theirs:
            stem = os.environ.get(STEM, "")
            if not stem or self._failures > 1 or not ask(stem, theirs, environ, sys.path):
                self._process = subprocess.Popen(
                    zygote_command(theirs.fileno(), sys.path),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=environ,
                    start_new_session=True,
                )
        ours.setblocking(False)
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours, self._read, ours)

    async def launch(self, key: str, marks: Mapping[str, str], fds: RankFds) -> int:
        """See `Launcher`. ``key`` names the rank among those being forked."""
        await self._answers.wait()
        if self._socket is None or self._trouble:
            raise RunFailed(f"the rank cannot be started: {self._trouble or 'the agent is closing'}")
        forked = self._forks[key] = asyncio.get_running_loop().create_future()
        more = {name: fd for name in ("stacks", "listen") if (fd := getattr(fds, name)) is not None}
        told = {"op": "fork", "key": key, "marks": dict(marks), "more": list(more)}
        request = json.dumps(told).encode()
        numbers = [fds.stdout, fds.stderr, fds.channel, fds.job, *more.values()]
        try:
            socket.send_fds(self._socket, [request], numbers)
            pid: int = await forked
        except OSError as error:
            raise RunFailed(f"the rank could not be started: {error}") from error
        finally:
            self._forks.pop(key, None)
        return pid

    def kill(self, pid: int) -> None:
        """See `Launcher`."""
        processes.kill_group(pid)

    async def close(self) -> None:
        """See `Launcher`. Returns when the zygote is reaped, after at most 3 s."""
        if self._closed:
            return
        self._closed = True
        if self._restart is not None:
            self._restart.cancel()
        self._drop_socket()
        self._answers.set()
        if self._process is not None:  # a fork of the stem ends by itself: its socket was its agent
            with suppress(ProcessLookupError):
                self._process.terminate()
        await _gone(self._is_there, 2.0)
        self._kill()
        await _gone(self._is_there, 1.0)

    def _is_there(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return bool(self._forked) and processes.is_running(self._forked)

    def _kill(self) -> None:
        if self.pid is not None and self._is_there():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _read(self, source: socket.socket) -> None:
        while source is self._socket:
            try:
                data = source.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._hear(json.loads(data))

    def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"op": "ready", "pid": pid}:
                self._forked = pid
                self._failures = 0
                self._trouble = ""
                self._answers.set()
                self._listener.launcher_ready(True)
            case {"op": "forked", "key": key, "pid": pid}:
                if (forked := self._forks.get(key)) and not forked.done():
                    forked.set_result(pid)
                else:
                    self.kill(pid)  # whoever asked for it was stopped meanwhile
            case {"op": "failed", "key": key, "message": text}:
                if (forked := self._forks.get(key)) and not forked.done():
                    forked.set_exception(RunFailed(f"the rank could not be started: {text}"))
            case {"op": "exited", "key": key, "status": status}:
                self._listener.rank_exited(key, status)

    def _lost(self) -> None:
        """The zygote is gone: its ranks are nobody's children now. Start another."""
        self._drop_socket()
        self._answers.clear()
        status = self._status()
        how = f" by signal {-status}" if status is not None and status < 0 else f" with exit code {status}"
        text = f"the process that the ranks are forked from ended{how if status is not None else ''}"
        logger.error("%s; starting another", text)
        for forked in self._forks.values():
            if not forked.done():
                forked.set_exception(RunFailed(text))
        self._listener.launcher_ready(False)
        self._listener.ranks_lost(text)
        delay = RESTART_DELAYS_S[min(self._failures, len(RESTART_DELAYS_S) - 1)]
        self._failures += 1
        if self._failures >= FAILURES_BORNE:
            self._trouble = f"{text} {self._failures} times; the log of the worker says why"
            self._answers.set()
        self._restart = asyncio.get_running_loop().call_later(delay, self._start_again)

    def _status(self) -> int | None:
        """How the zygote ended; None where it lives on. Its socket closes some milliseconds before it can be asked."""
        try:
            return self._process.wait(DYING_S) if self._process else None
        except subprocess.TimeoutExpired:
            return None

    def _start_again(self) -> None:
        self._kill()
        if self._process is not None:
            self._process.wait(1.0)
        self.start()

    def _drop_socket(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None


class UnsupportedLauncher:
    """Says on every launch that this platform cannot run ranks."""

    def start(self) -> None:
        """Nothing to get ready."""

    async def launch(self, key: str, marks: Mapping[str, str], fds: RankFds) -> int:
        """Always raises RunFailed."""
        raise RunFailed(
            f"ranks cannot run on {sys.platform}: connect to a cluster on Linux, or use WSL on Windows"
        )

    def kill(self, pid: int) -> None:
        """There is nothing to kill."""

    async def close(self) -> None:
        """Nothing to close."""


def new_launcher(listener: Listener, *, platform: str = sys.platform) -> Launcher:
    """The launcher of this platform."""
    return ForkLauncher(listener) if platform == "linux" else UnsupportedLauncher()


async def _gone(is_there: Callable[[], bool], timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while is_there() and loop.time() < deadline:
        await asyncio.sleep(0.005)


MakeLauncher = Callable[[Listener], Launcher]
