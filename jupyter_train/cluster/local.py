"""Our local cluster: one per environment and home, found by its record, started where there is none.

It belongs to no kernel: the supervisor leaves the kernel's process tree and
session, holds none of its files, and ends the cluster by itself when nobody
needs it any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from jupyter_train import home as homes
from jupyter_train.cluster import logfile, records
from jupyter_train.cluster.fingerprint import checkout_folder, fingerprint
from jupyter_train.cluster.lock import StartLock, start_lock
from jupyter_train.cluster.records import ClusterRecord
from jupyter_train.cluster.size import default_workers, usable_cores
from jupyter_train.errors import ClusterError

START_TIMEOUT_S = 60.0
IDLE_TIMEOUT_S = 1800.0

#: Of the kernel that happens to start the cluster. With JPY_PARENT_PID set, an
#: ipykernel imported in a worker would watch, and end with, the Jupyter server.
KERNEL_VARIABLES = ("JPY_", "IPY_INTERRUPT_EVENT", "JUPYTER_TRAIN_RUN", "PYDEVD_", "VSCODE_")


def local_name() -> str:
    """The name of this environment's local cluster."""
    return f"local-{fingerprint()[:8]}"


def find_local(home: Path | None = None) -> ClusterRecord | None:
    """This environment's local cluster, if it is running."""
    record = records.read(local_name(), home)
    return record if record is not None and record.is_alive and record.state == "running" else None


def start(
    n: int | None = None,
    *,
    threads: int | None = None,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
    home: Path | None = None,
) -> ClusterRecord:
    """The record of this environment's local cluster, started where it is not running.

    Connects to nothing, and nothing is printed. Returns when all its workers
    are there; one that was running stays as it is.

    Args:
        n: workers; measured for this machine where it is not given.
        threads: Dask threads per worker, 1 where it is not given; ranks are not among them.
        idle_timeout_s: seconds without client and run after which it ends.
        home: folder of records and certificates.

    Raises:
        ClusterError: it did not start; the message has the end of its log.
    """
    with starting(n, threads=threads, idle_timeout_s=idle_timeout_s, home=home) as begun:
        return begun.wait()


class Start:
    """A start under way, or a cluster found running: `wait` gives its record."""

    def __init__(self, name: str, home: Path | None, found: ClusterRecord | None, pipe: int | None) -> None:
        self._name = name
        self._home = home
        self._found = found
        self._pipe = pipe

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> ClusterRecord:
        """Wait until the workers are there.

        Raises:
            ClusterError: they are not, or the cluster has ended.
        """
        if self._found is not None or self._pipe is None:
            assert self._found is not None
            return self._found
        folder = records.folder_of(self._name, self._home)
        line = _read_line(self._pipe, timeout_s)
        if line is None:
            raise ClusterError(
                f"the local cluster is not ready after {timeout_s:.0f} s. The end of its log, {folder}/log:\n"
                + logfile.last_lines(folder / "log", 15)
            )
        answer: dict[str, str] = (
            json.loads(line)
            if line
            else {"error": "its supervisor ended", "log": logfile.last_lines(folder / "log", 15)}
        )
        record = records.read(self._name, self._home)
        if "error" in answer or record is None:
            raise ClusterError(
                f"the local cluster did not start: {answer.get('error', 'it has ended')}. The end of its log:\n"
                + answer.get("log", "")
            )
        return record

    def close(self) -> None:
        """Stop listening; a cluster that is starting goes on. Twice does nothing."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


@contextmanager
def starting(
    n: int | None = None,
    *,
    threads: int | None = None,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
    home: Path | None = None,
) -> Iterator[Start]:
    """Begin what `start` does, so that the caller can do something else before it waits.

    Of two kernels that start at once the second waits for the first, and finds its cluster; also where
    the first leaves before it is there.
    """
    name = local_name()
    root = home or homes.home()
    with start_lock(name, root=root, wait_s=START_TIMEOUT_S) as locked:
        if not locked:
            raise ClusterError(
                f"another process has been starting the local cluster for {START_TIMEOUT_S:.0f} s; its log is "
                f"{records.folder_of(name, root)}/log"
            )
        found = _running(name, root)
        pipe = None
        if found is None:
            workers = n or default_workers(usable_cores())
            pipe = _launch(
                name, root, locked, workers=workers, threads=threads or 1, idle_timeout_s=idle_timeout_s
            )
            _supersede(name, root)
        begun = Start(name, root, found, pipe)
        try:
            yield begun
        finally:
            begun.close()


def stop_record(record: ClusterRecord, *, timeout_s: float = 20.0, root: Path | None = None) -> None:
    """End a local cluster of this host; returns when its processes and files are gone.

    Raises:
        ClusterError: it runs on another host.
    """
    if not record.is_here:
        raise ClusterError(f"the cluster {record.name} runs on {record.hostname}: stop it there")
    record.process.send(signal.SIGTERM)
    if not record.process.wait(timeout_s):
        family = _family(record.pid)
        record.process.kill()
        for pid in family:  # they end with the supervisor, unless they are stuck as it was
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        record.process.wait(5)
    with start_lock(record.name, root=root):
        left = records.read(record.name, root)
        if left is None or not left.is_alive:
            records.remove(record.name, root)


def clean_environment(
    environ: Mapping[str, str], *, home: Path, source: Path | None = None
) -> dict[str, str]:
    """The environment of a cluster: that of its starter without what belongs to a kernel.

    Args:
        environ: of the starter.
        home: where the cluster keeps its files.
        source: folder of a checkout of jupyter_train, to be found by every process.
    """
    out = {
        name: value
        for name, value in environ.items()
        if not name.startswith(KERNEL_VARIABLES)
        and not (name == "MPLBACKEND" and value.startswith("module://"))  # a kernel's own, for its displays
    }
    out["JUPYTER_TRAIN_HOME"] = str(home)
    if source is not None:  # a checkout that is not installed is found all the same
        known = [path for path in out.get("PYTHONPATH", "").split(os.pathsep) if path]
        out["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*known, str(source)]))
    return out


def _running(name: str, root: Path) -> ClusterRecord | None:
    """The cluster of that name, once one that is ending is gone; what a dead one left is removed."""
    record = records.read(name, root)
    if record is not None and record.is_alive:
        if record.state == "running":
            return record
        record.process.wait(20)
        record.process.kill()
    records.remove(name, root)
    return None


def _launch(
    name: str, root: Path, lock: StartLock, *, workers: int, threads: int, idle_timeout_s: float
) -> int:
    """Start a supervisor, which shares the lock until it is ready; gives the pipe on which it tells how that went."""
    assert lock.handle is not None
    shared = _high(os.dup(lock.handle))
    folder = homes.private_folder(records.folder_of(name, root))
    log = _high(os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    hears, tells = (_high(fd) for fd in os.pipe())
    command = [
        *(sys.executable, "-P", "-m", "jupyter_train.cluster.supervisor"),  # -P: not the modules of cwd
        *("--name", name, "--home", str(root), "--fingerprint", fingerprint()),
        *("--workers", str(workers), "--threads", str(threads), "--idle-timeout", str(idle_timeout_s)),
        *("--notify", str(tells), "--lock", str(shared)),
    ]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=clean_environment(os.environ, home=root, source=checkout_folder()),
            pass_fds=[tells, shared],
            start_new_session=True,  # Jupyter interrupts the kernel's process group
        )
        lock.given_away = True
        process.wait()  # it forks at once: the supervisor is nobody's child
    except BaseException:
        os.close(hears)
        raise
    finally:
        for fd in (log, tells, shared):
            os.close(fd)
    return hears


def _supersede(name: str, root: Path) -> None:
    """Tell this prefix's cluster of other versions to end as soon as nobody needs it."""
    for record in records.live(root):
        if record.name != name and record.kind == "local" and record.prefix == sys.prefix:
            record.process.send(signal.SIGUSR1)


def _high(fd: int) -> int:
    """The same file under a number above those of the standard streams, which the caller may have closed."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def _read_line(pipe: int, timeout_s: float) -> bytes | None:
    """One line, b"" at the end of the file, None where nothing comes in time."""
    data = b""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not data.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            got = os.read(pipe, 65536)
            if not got:
                return b""
            data += got
    return data


def _family(pid: int) -> list[int]:
    """A supervisor's processes, which are forks of it and share its command line (Linux)."""
    try:
        wanted = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != pid:
            with suppress(OSError):
                if entry.joinpath("cmdline").read_bytes() == wanted:
                    found.append(int(entry.name))
    return found
