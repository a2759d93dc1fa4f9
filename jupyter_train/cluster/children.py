"""Processes forked from the supervisor: each in a session of its own, none outliving it.

The supervisor has imported Dask and has neither threads nor an event loop, so
a fork is safe and cheap: a worker is there in 0.05 s instead of 0.7 s or more,
and shares the memory of what was imported.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import sys
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jupyter_train.cluster.channel import Channel, channel_pair

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36

_supervisor = 0  # in a child: the number of its parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A forked process and the channel to it."""

    name: str
    pid: int
    channel: Channel

    def kill(self) -> None:
        """End it and everything in its process group at once.

        Called while it is running or a zombie, so that the number is still its own.
        """
        for send in (os.killpg, os.kill):
            try:
                send(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


def fork(name: str, main: Callable[[Channel], int]) -> Child:
    """Run ``main`` in a new process, which ends with the code that it returns.

    The child keeps no file of the supervisor but standard streams and channel.
    When the supervisor dies, however it dies, the child kills its own group.
    """
    here, there = channel_pair()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        there.close()
        return Child(name=name, pid=pid, channel=here)
    code = 1
    try:
        _become(name, parent, keep=there.fileno())
        code = main(there)
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def when_told_to_end(on_terminate: Callable[[], None]) -> None:
    """Decide what SIGTERM means in this child: the supervisor is dead, or ``on_terminate``.

    ``on_terminate`` runs in the main thread, between two bytecodes.
    """

    def terminated(_signum: int, _frame: object) -> None:
        if os.getppid() == _supervisor:
            on_terminate()
        else:  # nobody is left to be told how it went; what this process has started ends with it
            os.killpg(os.getpgid(0), signal.SIGKILL)

    signal.signal(signal.SIGTERM, terminated)


def adopt_orphans() -> None:
    """Become the parent of whatever processes below lose theirs, so that they can be ended (Linux)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def children_of_this_process() -> set[int]:
    """Numbers of all direct children, zombies too; empty where the system does not tell."""
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    except OSError:
        return set()
    return {int(pid) for pid in text.split()}


def _become(name: str, parent: int, *, keep: int) -> None:
    global _supervisor
    _supervisor = parent
    signal.set_wakeup_fd(-1)
    os.setsid()
    for signum in (signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_DFL)
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    when_told_to_end(lambda: _leave(0))
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked to be told
        _leave(1)
    _prctl(PR_SET_NAME, f"jt-{name}"[:15].encode())
    _close_all_but({0, 1, 2, keep})
    random.seed()
    # What runs here is not the supervisor's program: a function pickled from a
    # notebook's __main__ must not meet its names.
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]
    gc.enable()


def _close_all_but(kept: set[int]) -> None:
    try:
        open_files = [int(fd) for fd in os.listdir("/dev/fd")]
    except OSError:
        open_files = list(range(os.sysconf("SC_OPEN_MAX")))
    for fd in set(open_files) - kept:
        try:
            os.close(fd)
        except OSError:  # the listing's own
            pass


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code)


def _prctl(option: int, value: int | bytes) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
