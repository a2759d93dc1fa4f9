"""What works for one home at a moment, and what it holds: processes by what they are, memory, descriptors, files."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kernel import HOME

_PROC = Path("/proc")
_SHARED_MEMORY = Path("/dev/shm")
SPOOL_GRACE_S = 20.0  #: on a busy machine
_RUN = b"JUPYTER_TRAIN_RUN="
_SHADOW = b"JUPYTER_TRAIN_SHADOW="
_MEMORY = ("Private_Clean:", "Private_Dirty:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One living process that works for the home; zombies are counted apart."""

    pid: int
    parent: int
    role: str  #: kernel, supervisor, scheduler, worker, nanny, stem, zygote, rank, shadow or other
    private_bytes: int = 0  #: of memory that no other process shares; 0 where it was not asked for
    descriptors: int = 0
    sockets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Everything at one moment."""

    processes: tuple[Process, ...]
    zombies: int = 0  #: children of these processes that nobody has waited for
    files: tuple[str, ...] = ()  #: temporary ones

    def count(self, role: str) -> int:
        """How many processes are that."""
        return sum(p.role == role for p in self.processes)

    @property
    def roles(self) -> dict[str, int]:
        """Processes by what they are."""
        return dict(sorted(Counter(p.role for p in self.processes).items()))

    def total(self, what: str, role: str | None = None) -> int:
        """``private_bytes``, ``descriptors`` or ``sockets`` of all processes, or of those of one role."""
        return sum(int(getattr(p, what)) for p in self.processes if role in (None, p.role))


def role_of(command: str, name: str, environ: bytes) -> str:
    """What a process is. ``command``: its arguments with blanks between; ``name``: as the system shows it."""
    if b"\0" + _RUN in b"\0" + environ:
        return "shadow" if _SHADOW in environ else "rank"
    if name in ("zygote", "jt-stem"):  # forks of a stem have its arguments
        return name.removeprefix("jt-")
    if name.startswith("jt-"):
        return "scheduler" if name == "jt-scheduler" else "worker"
    for part, role in (
        ("jupyter_train.runtime.zygote", "zygote"),
        ("jupyter_train.cluster.supervisor", "supervisor"),
        ("ipykernel", "kernel"),
        ("jupyterlab", "server"),
        ("jupyter_server", "server"),
    ):
        if part in command:
            return role
    return "other"


def works_for(environ: bytes, home: Path) -> bool:
    """Whether a process with that environment belongs to ``home``."""
    return f"{HOME}={home}".encode() in environ.split(b"\0")


def take(home: Path, *, folders: Iterable[Path] = (), deep: bool = False) -> Census:
    """What there is now. ``folders`` hold temporary files of these processes; ``deep`` asks for memory and descriptors."""
    found: list[Process] = []
    states: list[tuple[int, str]] = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            states.append((int(fields[1]), fields[0]))
            if fields[0] in "ZX":
                continue
            environ = (entry / "environ").read_bytes()
            if works_for(environ, home):
                found.append(_look(entry, int(fields[1]), environ, deep=deep))
    mine = {p.pid for p in found}
    return Census(
        processes=tuple(found),
        zombies=sum(state == "Z" and parent in mine for parent, state in states),
        files=tuple(sorted(map(str, temporary_files(home, folders)))) if deep else (),
    )


def ranks(home: Path) -> list[Process]:
    """Rank processes and whatever they have started."""
    return [p for p in take(home).processes if p.role in ("rank", "shadow")]


def _look(entry: Path, parent: int, environ: bytes, *, deep: bool) -> Process:
    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    role = role_of(command, (entry / "comm").read_text().strip(), environ)
    if not deep:
        return Process(pid=int(entry.name), parent=parent, role=role)
    links = []
    for link in (entry / "fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(link))
    if role == "kernel":
        # ipykernel has one for each thread that prints, and lets go of those of ended threads every ten seconds.
        links = [link for link in links if link != "anon_inode:[eventfd]"]
    private = 0
    for line in (entry / "smaps_rollup").read_text().splitlines():
        if line.startswith(_MEMORY):
            private += int(line.split()[1]) * 1024
    return Process(
        pid=int(entry.name),
        parent=parent,
        role=role,
        private_bytes=private,
        descriptors=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
    )


def temporary_files(home: Path, folders: Iterable[Path]) -> Iterator[Path]:
    """What no ended run needs: spools and half-written files in the home, shared memory with our name, all in ``folders``.

    Agents keep the spool of an ended rank for a while, until its events must have been journalled: not counted.
    """
    from jupyter_train.runtime.agent import SPOOL_KEPT_S

    for path in home.rglob("*"):
        with contextlib.suppress(OSError):
            is_spool = path.name.startswith("spool-")
            if is_spool and time.time() - path.stat().st_mtime < SPOOL_KEPT_S + SPOOL_GRACE_S:
                continue
            if is_spool or ".part" in path.suffixes:
                yield path
    yield from _SHARED_MEMORY.glob("jupyter-train-*")
    for folder in folders:
        yield from (path for path in folder.rglob("*") if not path.is_dir())
