"""What a rank is doing, asked from outside: the Python stacks of all its threads.

The rank has a signal for which the interpreter writes them from C, so that it
answers while it is asleep, waits for a lock, or holds the interpreter's lock in
native code. They go to a file of memory that its agent holds too, never to the
rank's output.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path

from jupyter_train.runtime import processes

NAME = "jupyter-train-stacks"
ANSWER_S = 0.6  #: for all that are asked: a process that runs at all answers in milliseconds
SETTLED_S = 0.03  #: nothing was written for so long: that was all
MOST_CHILDREN = 4  #: loader workers that are asked besides
MOST_CHARACTERS = 20_000
SHORT_FRAMES = 12
OWN_FRAMES = 3  #: lines of a thread of ours: nobody's question either, but it is there

_PROC = Path("/proc")
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*:$", re.MULTILINE)
_IS_OURS = re.compile(rf'^  File "{re.escape(_OWN)}')
_COMMAND = '  File "<string>"'  #: of the zygote, whose rank this is


def ask_signal() -> int:
    """Number of the signal that asks for the stacks. Real-time, so that no library uses it by chance."""
    return int(signal.SIGRTMIN) + 10


def answer(fd: int) -> None:
    """From now on this process, and every fork of it, writes its stacks to ``fd`` when it is asked."""
    faulthandler.register(ask_signal(), file=fd, all_threads=True, chain=False)


class StacksFile:
    """The agent's end: a file of memory in which a rank writes its stacks. Any thread, one at a time."""

    def __init__(self) -> None:
        self.fd = os.memfd_create(NAME)
        try:
            fcntl.fcntl(
                self.fd, fcntl.F_SETFL, os.O_APPEND
            )  # shared with the rank: each dump follows the last
        except BaseException:
            os.close(self.fd)
            raise

    def take(self, pid: int, *, short: bool = False) -> str:
        """The stacks of the process and of its first children; blocks for up to `ANSWER_S`.

        Where they cannot be had, a sentence says why; on a machine that is too busy the children are left out.

        Args:
            pid: of the rank.
            short: the main thread's newest frames alone.
        """
        until = time.monotonic() + ANSWER_S
        text = arranged(self._ask(pid, until), short=short) or _silence(pid)
        if not short:
            for child in processes.children(pid)[:MOST_CHILDREN]:
                if found := arranged(self._ask(child, until), short=True):
                    text += f"\n\nProcess {child}, started by the rank:\n{found}"
        return text[:MOST_CHARACTERS]

    def close(self) -> None:
        """Twice does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _ask(self, pid: int, until: float) -> str:
        if time.monotonic() > until or not _would_answer(pid):
            return ""
        try:
            os.ftruncate(self.fd, 0)
            os.kill(pid, ask_signal())
        except OSError:  # it is gone, or this rank's link is closed
            return ""
        size, settled = 0, until
        while time.monotonic() < min(until, settled):
            time.sleep(0.005)
            try:
                found = os.fstat(self.fd).st_size
            except OSError:
                return ""
            if found != size:
                size, settled = found, time.monotonic() + SETTLED_S
        return os.pread(self.fd, size, 0).decode(errors="backslashreplace")


def arranged(text: str, *, short: bool = False) -> str:
    """The interpreter's ``text`` with the main thread first and our own threads last, shortened.

    Args:
        text: of threads, most recent call first in each; the one that took the signal is the main thread.
        short: the main thread's newest frames alone.
    """
    starts = [found.start() for found in _THREAD.finditer(text)]
    if not starts:
        return ""
    blocks = [text[a:b].rstrip() for a, b in pairwise([*starts, len(text)])]
    blocks.sort(key=lambda block: not block.startswith("Current"))
    main = blocks[0].splitlines()
    if main[-1].startswith(_COMMAND) and _IS_OURS.match(main[-2]):
        main.pop()
    while len(main) > 2 and _IS_OURS.match(main[-1]):
        main.pop()  # how the cell came to be run is nobody's question
    if short:
        return "\n".join(main[: SHORT_FRAMES + 1])
    others = [block for block in blocks[1:] if _OWN not in block]
    ours = ["\n".join(block.splitlines()[:OWN_FRAMES]) for block in blocks[1:] if _OWN in block]
    return "\n\n".join(["\n".join(main), *others, *ours])


def _would_answer(pid: int) -> bool:
    """It handles the signal, which would end it otherwise, has the file, and is not stopped."""
    try:
        status = (_PROC / str(pid) / "status").read_text()
        files = [os.readlink(entry) for entry in (_PROC / str(pid) / "fd").iterdir()]
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    is_handled = caught is not None and bool(int(caught[1], 16) >> (ask_signal() - 1) & 1)
    return is_handled and any(NAME in name for name in files) and not processes.is_stopped(pid)


def _silence(pid: int) -> str:
    if processes.is_stopped(pid):
        return "The process is stopped, by SIGSTOP or a debugger: its stacks cannot be had."
    if not processes.is_running(pid):
        return "The process has ended."
    return "The process does not answer: its stacks cannot be had."
