"""The stem of a host's zygotes: it has imported everything once, and every zygote is a fork of it.

So a worker that is started, and one that is started again after its death, has a warm zygote in milliseconds
instead of seconds of imports, and the zygotes share their memory. The supervisor of a local cluster keeps the
stem, and the socket on which it listens; agents find its name in their environment. Whoever asks sends one
datagram (SOCK_SEQPACKET) with two descriptors: the socket on which the zygote shall listen to its agent, and a file of
memory with JSON: ``{"path": [...], "environ": {...}}``. There is no answer: the zygote says that it is ready, and what
becomes of a request that nobody serves is the end of the socket.

The stem ends on SIGTERM and with its supervisor; its zygotes go on without it, each until its agent's end closes.
It has one thread, and adopts whatever a dead zygote leaves behind, to end it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from jupyter_train.runtime import processes
from jupyter_train.runtime.zygote import DONE_AT_LEISURE, Zygote, do_at_leisure, import_first

STEM = "JUPYTER_TRAIN_STEM"  #: environment variable: the name of the stem's socket, which is in no folder
NAME, ZYGOTE_NAME = "jt-stem", "zygote"  #: as the system shows them
BACKLOG = 512
MESSAGE_BYTES = 16


def listen(name: str) -> socket.socket:
    """The socket of a stem called ``name``. Requests wait in it, whether there is a stem or not."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listening.bind(f"\0{name}")
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def ask(name: str, agent: socket.socket, environ: dict[str, str], path: list[str]) -> bool:
    """Ask the stem called ``name`` for a zygote on the socket ``agent``; False where there is none."""
    request = json.dumps({"path": path, "environ": environ}).encode()
    file = os.memfd_create("jupyter-train-zygote")
    try:
        with open(file, "wb", closefd=False) as written:
            written.write(request)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.setblocking(False)  # a full backlog is no stem for us
            asking.connect(f"\0{name}")
            if not _is_ours(asking):
                return False
            socket.send_fds(asking, [b"zygote"], [agent.fileno(), file])
        return True
    except OSError:
        return False
    finally:
        os.close(file)


def run(fd: int, parent: int) -> NoReturn:
    """Be a stem on the listening socket ``fd`` until the supervisor, process ``parent``, is gone."""
    processes.die_with_parent(parent, signal.SIGTERM)
    processes.adopt_orphans()
    processes.name_process(NAME)
    import_first()
    Stem(socket.socket(fileno=fd)).serve()


class Stem:
    """One thread, one loop: forks zygotes on request and reaps what it adopted."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._zygotes: set[int] = set()
        self._wake_read, self._wake_write = os.pipe()
        self._leisure = list(DONE_AT_LEISURE)

    def serve(self) -> NoReturn:
        """Loop until SIGTERM comes."""
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        while True:
            waiting: list[Any] = [self._listening, self._wake_read]
            readable, _, _ = select.select(waiting, [], [], 0.0 if self._leisure else None)
            if self._listening in readable:
                self._serve_agent()
            elif self._leisure and not readable:
                do_at_leisure(self._leisure)
            if self._wake_read in readable:
                with suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()

    def _serve_agent(self) -> None:
        fds: list[int] = []
        with suppress(OSError, ValueError):  # whoever asked is gone
            asking, _ = self._listening.accept()
            with asking:
                asking.settimeout(1.0)
                if _is_ours(asking):
                    _, fds, _, _ = socket.recv_fds(asking, MESSAGE_BYTES, 2)
            if len(fds) == 2:
                self._fork(*fds)
        for fd in fds:
            os.close(fd)

    def _fork(self, agent: int, file: int) -> None:
        with open(file, "rb", closefd=False) as given:
            given.seek(0)
            request = json.load(given)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM))
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    self._become_zygote(agent, file, request)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            self._zygotes.add(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGTERM))

    def _become_zygote(self, agent: int, file: int, request: dict[str, object]) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGTERM))
        os.setsid()
        processes.stay_without_parent()
        processes.adopt_orphans()
        processes.name_process(ZYGOTE_NAME)
        self._listening.close()
        for fd in (self._wake_read, self._wake_write, file):
            os.close(fd)
        path, environ = request["path"], request["environ"]
        assert isinstance(path, list)
        assert isinstance(environ, dict)
        sys.path[:] = path
        _take_environ(environ)
        Zygote(socket.socket(fileno=agent), leisure=self._leisure).serve()

    def _reap(self) -> None:
        """Take leave of zygotes, and end what they left: nobody else would."""
        while True:
            try:
                ended, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if ended == 0:
                break
            self._zygotes.discard(ended)
        for pid in processes.children(os.getpid()):
            if pid not in self._zygotes:
                processes.kill_group(pid)


def _take_environ(environ: dict[str, str]) -> None:
    """Take the worker's environment over; the pad stays where it is, for a rank to write its marks on."""
    for name in set(os.environ) - set(environ) - {processes.PAD}:
        del os.environ[name]
    for name, value in environ.items():
        if name != processes.PAD and os.environ.get(name) != value:
            os.environ[name] = value


def _is_ours(peer: socket.socket) -> bool:
    """Whether the process at the other end is the same user's: names of this kind have no permissions."""
    told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", told)[1] == os.getuid())
