"""What Linux lets one process do to others: die with a parent, carry a mark, end a whole group.

A rank is a forked process, and the kernel shows in ``/proc/<pid>/environ`` the
environment its *zygote* was started with. So the zygote is started with a pad
variable, and a rank overwrites those bytes with its marks: anybody may then
count the processes of a run, whatever they forked or executed since.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

RUN_MARK = "JUPYTER_TRAIN_RUN"
ATTEMPT_MARK = "JUPYTER_TRAIN_ATTEMPT"
RANK_MARK = "RANK"
SHADOW_MARK = "JUPYTER_TRAIN_SHADOW"

PAD = "JUPYTER_TRAIN_PAD"
PAD_VALUE = "." * 160

OOM_SCORE_ADJUST = 500  #: the OOM killer takes a rank before agent, scheduler or kernel

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send ``number`` to this process when the thread that started it ends.

    Ends this process at once where the parent ended before the call could be made.
    """
    _libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def stay_without_parent() -> None:
    """Undo :func:`die_with_parent`, which a fork has not inherited, but may have been given."""
    _libc().prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def name_process(name: str) -> None:
    """What the system shows this process as; at most 15 bytes count. Forks inherit it."""
    _libc().prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def process_name(pid: int) -> str:
    """What the system shows the process as; empty where it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text().rstrip("\n")
    except OSError:
        return ""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, however far it daemonised itself."""
    _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def write_marks(marks: Mapping[str, str]) -> None:
    """Show ``marks`` in this process's ``/proc/<pid>/environ``, in the place of the pad.

    Without a pad of sufficient size it does nothing. Call once, before the environment is changed.
    """
    libc = _libc()
    libc.getenv.restype = ctypes.c_void_p
    address = libc.getenv(PAD.encode())
    data = b"\0".join(f"{name}={value}".encode() for name, value in marks.items())
    size = len(PAD) + 1 + len(PAD_VALUE)
    if not address or len(data) > size or os.environ.get(PAD) != PAD_VALUE:
        return
    start = address - len(PAD) - 1
    ctypes.memset(start, 0, size)
    ctypes.memmove(start, data, len(data))
    os.environ.pop(PAD, None)


def invite_oom_killer(score: int = OOM_SCORE_ADJUST) -> None:
    """Let the OOM killer take this process first. Raising one's own score needs no privilege."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score))
    except OSError:
        pass  # a container may forbid it; then the kernel decides by size alone


def stand_back() -> None:
    """Run only when nobody else wants to, this process and all that it starts.

    Sessions compete as groups where the kernel groups by them (sched(7), autogroup), and then only the group's
    nice value counts.
    """
    os.nice(19)
    for scheduled in (
        lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)),
        lambda: Path("/proc/self/autogroup").write_text("19"),
    ):
        try:
            scheduled()
        except OSError:
            continue  # a sandbox may forbid it, the kernel not know it


def come_forward(pid: int) -> None:
    """Let a process that stood back run like any other, where that is allowed."""
    for scheduled in (
        lambda: os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0)),
        lambda: os.setpriority(os.PRIO_PROCESS, pid, 0),
        lambda: Path(f"/proc/{pid}/autogroup").write_text("0"),
    ):
        try:
            scheduled()
        except OSError:
            continue  # only root may take niceness back


def kill_group(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send ``number`` to the process and the group it leads; whoever is gone already does not matter."""
    for send in (os.killpg, os.kill):
        try:
            send(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def marked(marks: Mapping[str, str]) -> Iterator[int]:
    """Processes of this user that carry all of ``marks``, oneself left out."""
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    me = os.getpid()
    for entry in os.listdir(_PROC):
        if not entry.isdigit() or int(entry) == me:
            continue
        try:
            environ = (_PROC / entry / "environ").read_bytes()
        except OSError:
            continue  # ended meanwhile, or somebody else's
        if wanted <= set(environ.split(b"\0")):
            yield int(entry)


def kill_marked(marks: Mapping[str, str], *, pid: int = 0, timeout_s: float = 1.0) -> None:
    """Kill every process that carries all of ``marks``; returns when none is left or after ``timeout_s``.

    Asks again until none is found: what is being killed may be forking.

    Args:
        marks: variables of the environment, with their values.
        pid: one that has been killed already: dying it has no environment any more, but is there.
        timeout_s: how long at most.
    """
    deadline = time.monotonic() + timeout_s
    dying = {pid} if pid else set()
    while pids := {one for one in {*marked(marks), *dying} if is_running(one)}:
        for one in pids:
            kill_group(one)  # again and again: a fresh fork has no group of its own yet
        dying |= pids
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return _state(pid) not in ("", "Z", "X")


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped the process, so that it does nothing until it is continued."""
    return _state(pid) in ("T", "t")


def children(pid: int) -> tuple[int, ...]:
    """The direct children of a process, zombies too; empty where it is gone."""
    found: list[int] = []
    try:
        for task in os.listdir(_PROC / str(pid) / "task"):
            found += map(int, (_PROC / str(pid) / "task" / task / "children").read_text().split())
    except OSError:
        pass
    return tuple(found)


def without(environ: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """``environ`` less ``names``."""
    return {name: value for name, value in environ.items() if name not in names}


def _state(pid: int) -> str:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]
