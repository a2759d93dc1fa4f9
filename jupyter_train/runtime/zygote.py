"""The zygote: a process that has imported everything a first training step needs, and forks ranks from itself.

It imports and never computes: a parallel torch operation, a backward or a CUDA
call here would make its children hang. It has one thread. Started with
``run(socket fd, parent pid)`` in a fresh interpreter, or forked from a `jupyter_train.runtime.stem`; ends when its agent's end
of the socket closes, when its parent dies, and on SIGTERM, and takes every rank
and what they left behind with it.

Messages are JSON, one per datagram (SOCK_SEQPACKET).
Agent → zygote: ``{"op": "fork", "key", "marks": {name: value}, "more": [name]}`` with the rank's file
descriptors: stdout, stderr, channel, job and those that ``more`` names: ``stacks``, and for rank 0 ``listen``, the
listening socket. Zygote → agent: ``{"op": "ready", "pid", "threads"}``,
``{"op": "forked", "key", "pid"}``, ``{"op": "failed", "key", "message"}``,
``{"op": "exited", "key", "status"}`` (a wait status) once everything the rank left is dead.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from jupyter_train.runtime import processes

MESSAGE_BYTES = 1 << 16
MAX_FILES = 6
RANK_NAME = "rank"  #: as the system shows it
EXIT_BROKEN = 70  #: of a rank that could not even begin; its stderr says why
_HANDLED = (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT)

#: Everything that a first data-parallel step would import lazily, 0.1 s to 1.6 s of it in each rank.
IMPORTED_FIRST = (
    "numpy",
    "torch",
    "torch.distributed",
    "torch.distributed.launcher.api",
    "torch.distributed.nn",
    "torch.nn.parallel",
    "torch._dynamo",
    "torch.utils.data",
    "torch.utils.data._utils.worker",
    "torch.optim.lr_scheduler",
    "torch.optim.swa_utils",
    "torch.utils._foreach_utils",
    "torch.amp",
    "multiprocessing.popen_fork",
    "multiprocessing.resource_tracker",
    "multiprocessing.queues",
    "multiprocessing.synchronize",
    "cloudpickle",
    "xxhash",
    "asyncio",
    "faulthandler",
    "linecache",
    "traceback",
    "jupyter_train.runtime.display",
    "jupyter_train.runtime.observe",
    "jupyter_train.runtime.rank",
)

#: Of these every module.
PACKAGES_IMPORTED_FIRST = (
    "jupyter_train.runtime.checkpoint",
    "jupyter_train.transport",
    "jupyter_train.runtime.parallel",
    "jupyter_train.runtime.proof",
)

#: Imported, or called (``module:function``), while nothing else is to be done, where they exist: what not every
#: release of torch has, what shows things, and what notebooks use most beside it.
DONE_AT_LEISURE = (
    "jupyter_train.runtime.shell:new_shell",
    "torch.profiler._cupti_monitor",
    "torch._subclasses.schema_check_mode",
    "tqdm.std",
    "pandas",
    "matplotlib.pyplot",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFiles:
    """File descriptors that a rank starts with, beside 0 to 2."""

    channel: int  #: a connected stream socket, see `jupyter_train.runtime.channel`
    job: int  #: a file of memory that holds the JSON of a `Job`
    stacks: int | None  #: where it writes its stacks when it is asked; a shadow is not asked
    listen: int | None  #: the bound and listening socket of the rendezvous; rank 0 only


def run(fd: int, parent: int) -> NoReturn:
    """Be a zygote on the socket ``fd`` until the agent, process ``parent``, is gone."""
    processes.die_with_parent(parent, signal.SIGTERM)
    processes.adopt_orphans()
    import_first()
    Zygote(socket.socket(fileno=fd)).serve()


def import_first() -> None:
    """Import what every rank needs, and leave one thread."""
    for name in IMPORTED_FIRST:
        importlib.import_module(name)
    for name in PACKAGES_IMPORTED_FIRST:
        for module in pkgutil.iter_modules(importlib.import_module(name).__path__, f"{name}."):
            importlib.import_module(module.name)
    _settle()
    _end_threads()


def do_at_leisure(left: list[str]) -> None:
    """Import or do the next of what is ``left``."""
    _do_if_there(left.pop(0))
    if not left:
        _settle()


def _do_if_there(name: str) -> None:
    try:
        found = pkgutil.resolve_name(name)
        if ":" in name:
            found()
    except Exception:  # whatever a package that is not ours raises must not cost the ranks
        pass


def _settle() -> None:
    """Leave what was imported alone: a collection in a child would write to every shared page."""
    gc.collect()
    gc.freeze()


def _end_threads() -> None:
    """Have libraries end the threads of their pools, as numpy's OpenBLAS does before each fork: they come back when needed."""
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


class Zygote:
    """One thread, one loop: forks on request, reaps, and ends everything at its own end."""

    def __init__(self, agent: socket.socket, *, leisure: Sequence[str] = DONE_AT_LEISURE) -> None:
        self._agent = agent
        self._leisure = list(leisure)
        self._live: dict[int, dict[str, Any]] = {}  # process id of a rank → the request for it
        self._wake_read, self._wake_write = os.pipe()

    def serve(self) -> NoReturn:
        """Loop until the agent's end closes or SIGTERM comes."""
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        # Handlers only wake the loop: a signal between fork and the entry in _live could spare a rank.
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._say({"op": "ready", "pid": os.getpid(), "threads": len(os.listdir("/proc/self/task"))})
        waiting: list[Any] = [self._agent, self._wake_read]
        while True:
            readable, _, _ = select.select(waiting, [], [], 0.0 if self._leisure else None)
            if self._leisure and not readable:
                do_at_leisure(self._leisure)
            if self._wake_read in readable:
                signals = os.read(self._wake_read, 4096)
                self._reap()
                if signal.SIGTERM in signals:
                    self._end()
            if self._agent in readable:
                self._serve_agent()

    def _serve_agent(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._agent, MESSAGE_BYTES, MAX_FILES)
        if not data:
            self._end()
        request = json.loads(data)
        try:
            pid = self._fork(request, fds)
        except OSError as error:
            self._say({"op": "failed", "key": request["key"], "message": str(error)})
        else:
            self._say({"op": "forked", "key": request["key"], "pid": pid})
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, request: dict[str, Any], fds: list[int]) -> int:
        zygote = os.getpid()
        # Blocked until the child has left our wake pipe: a signal to it must not wake us.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    self._become_rank(zygote, request, fds)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(EXIT_BROKEN)
            self._live[pid] = request
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        return pid

    def _become_rank(self, zygote: int, request: dict[str, Any], fds: list[int]) -> NoReturn:
        stdout, stderr, channel, job, *rest = fds
        more = dict(zip(request["more"], rest, strict=True))
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        # Until the rank has its own handler, the default ends it: it has no children yet.
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        os.setsid()
        processes.die_with_parent(zygote, signal.SIGTERM)
        processes.name_process(RANK_NAME)
        self._agent.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        os.close(stdout)
        os.close(stderr)
        processes.write_marks(request["marks"])
        from jupyter_train.runtime.rank import main

        main(RankFiles(channel=channel, job=job, stacks=more.get("stacks"), listen=more.get("listen")))

    def _reap(self) -> None:
        while True:
            try:
                # Left a zombie until its group is killed: so long its number cannot become another's.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            request = self._live.pop(pid, None)
            if request is not None:
                processes.kill_group(pid)
            _, status = os.waitpid(pid, 0)
            if request is not None:
                self._kill_left_behind(request["marks"])
                self._say({"op": "exited", "key": request["key"], "status": status})

    def _kill_left_behind(self, marks: Mapping[str, str]) -> None:
        """Kill what left the rank's group.

        We adopt every orphan, so that without orphans nothing was left behind.
        While other ranks live, an orphan may be theirs: then only the marks tell.
        """
        if not self._orphans():
            return
        processes.kill_marked(marks)
        if not self._live:
            self._kill_orphans()

    def _orphans(self) -> list[int]:
        return [pid for pid in processes.children(os.getpid()) if pid not in self._live]

    def _kill_orphans(self, timeout_s: float = 1.0) -> None:
        deadline = time.monotonic() + timeout_s
        while (orphans := self._orphans()) and time.monotonic() < deadline:
            for pid in orphans:
                processes.kill_group(pid)
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue
            time.sleep(0.001)

    def _end(self) -> NoReturn:
        marks = [request["marks"] for request in self._live.values()]
        for pid in self._live:
            processes.kill_group(pid)
        self._live.clear()
        self._kill_orphans()
        for each in marks:
            processes.kill_marked(each)
        os._exit(0)

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._agent.send(json.dumps(message).encode())
        except OSError:
            self._end()
