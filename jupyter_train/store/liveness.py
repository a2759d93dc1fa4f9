"""Whether the controller that writes a journal still lives: who does not is said to have LOST its runs."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jupyter_train.boot import boot_id

HEARTBEAT_S = 5.0  #: while a run goes on
SILENT_AFTER_S = 30.0  #: covers a busy disk and clocks that differ a little


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerMark:
    """What a controller says of itself in its journal."""

    controller: str
    version: str  #: of jupyter_train
    hostname: str
    boot: str  #: this boot of this machine (and, on Linux, this pid namespace); "" where it cannot be told
    pid: int
    process_start: int | None  #: start of the process, in the kernel's ticks since boot: pids are used again
    heartbeat: float  #: unix time, seconds
    closed: float | None = None  #: unix time at which it ended on purpose
    beat_boot: str = ""  #: boot of the machine by whose steady clock the heartbeat is told as well
    beat_s: float | None = None  #: that clock at the heartbeat: it is never set
    origin: str = ""  #: address of the scheduler that this is a copy from; "": the journal itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Now, as one machine has it."""

    unix_s: float
    boot: str  #: of the machine; "" where it cannot be told
    steady_s: float  #: seconds of a clock that is never set, since some moment of that boot


def this_moment(unix_s: float | None = None) -> Moment:
    """Now, here; ``unix_s`` where the caller has a clock of its own."""
    return Moment(unix_s=time.time() if unix_s is None else unix_s, boot=boot_id(), steady_s=time.monotonic())


def this_process(controller: str, version: str, now: Moment) -> ControllerMark:
    """The mark of the calling process, which lives."""
    return ControllerMark(
        controller=controller,
        version=version,
        hostname=socket.gethostname(),
        boot=this_boot(),
        pid=os.getpid(),
        process_start=process_start(os.getpid()),
        heartbeat=now.unix_s,
        beat_boot=now.boot,
        beat_s=now.steady_s,
    )


def is_silent(mark: ControllerMark, *, now: Moment, boot: str, start_of: Callable[[int], int | None]) -> bool:
    """Whether that controller is gone, as far as a reader can tell; pure.

    In the same boot of the same machine its process is looked up, so that a
    suspended laptop loses nothing; elsewhere the heartbeat must be recent: by
    the clock that is never set where reader and writer have the same one, else
    by the time of day. ``boot`` is as of :func:`this_boot`.
    """
    if mark.closed is not None:
        return True
    if mark.boot and mark.boot == boot and mark.process_start is not None:
        return start_of(mark.pid) != mark.process_start
    if mark.beat_s is not None and mark.beat_boot and mark.beat_boot == now.boot:
        return now.steady_s - mark.beat_s > SILENT_AFTER_S
    return now.unix_s - mark.heartbeat > SILENT_AFTER_S


def this_boot() -> str:
    """Names this boot of this machine and this pid namespace; "" where there is no such name."""
    if not sys.platform.startswith("linux"):
        return ""
    boot = boot_id()
    try:
        return f"{boot} {os.readlink('/proc/self/ns/pid')}" if boot else ""
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """When process ``pid`` started, in ticks since boot; None if there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command's name stands in brackets and may itself hold spaces and brackets.
    rest = stat.rpartition(b")")[2].split()
    return None if rest[0] in (b"Z", b"X") else int(rest[19])
