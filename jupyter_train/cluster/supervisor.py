"""The process that keeps a local cluster: ``python -m jupyter_train.cluster.supervisor``.

It starts the scheduler and the workers, starts a lost worker again, carries
out what kernels ask for through the scheduler, and leaves no process and no
file behind when the cluster ends. `Policy` decides; here it is done. One
thread and no event loop, so that a fork is safe at any time: it is its own
nanny, forking workers out of a process that has imported Dask.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from jupyter_train._version import __version__
from jupyter_train.cluster import children, logfile, records
from jupyter_train.cluster.alive import this_process
from jupyter_train.cluster.channel import Channel, Message
from jupyter_train.cluster.children import Child
from jupyter_train.cluster.lock import StartLock, lock_path
from jupyter_train.cluster.policy import Command, End, Policy, Shrink, StartWorker, Status
from jupyter_train.cluster.records import ClusterRecord
from jupyter_train.cluster.starter import Starter
from jupyter_train.cluster.stemkeeper import StemKeeper
from jupyter_train.runtime.processes import process_name
from jupyter_train.runtime.stem import ZYGOTE_NAME

LOG_CHECK_S = 5.0
END_TIMEOUT_S = 6.0  # the controller gives runs a second to end
WORKERS_END_S = 2.0
ORPHAN_GRACE_S = 1.0  # what a dead worker leaves ends by itself in 0.1 s, if it is ours
SCHEDULER = "scheduler"

logger = logging.getLogger("jupyter_train.cluster")


class Supervisor:
    """One cluster, from its first process to its last file."""

    def __init__(self, record: ClusterRecord, policy: Policy, *, home: Path, starter: Starter) -> None:
        self._record = record
        self._policy = policy
        self._home = home
        self._folder = record.folder(home)
        self._starter = starter
        self._children: dict[str, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._sweep_at: float | None = None
        self._stem = StemKeeper()

    def run(self) -> None:
        """Keep the cluster until it ends; returns when nothing of it is left but this process."""
        from jupyter_train.cluster import scheduler_process

        self._listen_for_signals()
        self._stem.open()  # first, since it takes longest
        self._fork(SCHEDULER, lambda channel: scheduler_process.run(channel, self._folder))
        while (end := self._act(self._policy.tick(time.monotonic()))) is None:
            self._wait(self._policy.wait_s(time.monotonic()))
        self._end(end)

    def _wait(self, timeout_s: float | None) -> None:
        """Sleep until something happens, and take in what did."""
        due = [LOG_CHECK_S, LOG_CHECK_S if timeout_s is None else timeout_s]
        if self._sweep_at is not None:
            due.append(max(0.0, self._sweep_at - time.monotonic()))
        for key, _ in self._selector.select(min(due)):
            handle: Callable[[], None] = key.data
            handle()
        self._reap()
        if self._sweep_at is not None and time.monotonic() >= self._sweep_at:
            self._sweep_at = None
            self._kill_orphans()
        logfile.bound(self._folder / "log")
        if not self._owns_files():
            self._policy.superseded()  # somebody has emptied the home: no other kernel finds it any more

    def _owns_files(self) -> bool:
        """Whether what lies under our name is ours: after an emptied home it may be another cluster's."""
        if not self._record.address:
            return True  # still starting: the lock is ours
        there = records.read(self._record.name, self._home)
        return there is not None and there.process == self._record.process

    def _act(self, commands: Iterable[Command]) -> End | None:
        for command in commands:
            if isinstance(command, End):
                return command
            if isinstance(command, Shrink):
                self._children[SCHEDULER].channel.send(op="shrink", excess=command.excess)
            else:
                self._start_worker(command)
        return None

    # -- processes

    def _start_worker(self, command: StartWorker) -> None:
        from jupyter_train.cluster import worker_process

        settings = worker_process.WorkerSettings(
            name=command.name,
            scheduler=self._record.address,
            threads=self._record.threads,
            folder=self._folder,
            stem=self._stem.name,
        )
        self._fork(command.name, lambda channel: worker_process.run(channel, settings))

    def _fork(self, name: str, main: Callable[[Channel], int]) -> None:
        child = children.fork(name, main)
        logger.info("started %s, process %d", name, child.pid)
        self._children[name] = child
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._hear(child))

    def _hear(self, child: Child) -> None:
        messages = child.channel.receive()
        if messages is None:
            self._selector.unregister(child.channel)
            return
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        """One message of the scheduler process."""
        match message["op"]:
            case "address":
                self._record = replace(self._record, address=message["address"])
                records.write(self._record, self._home)
                self._policy.scheduler_listens()
            case "status":
                status = Status(
                    clients=message["clients"],
                    runs=message["runs"],
                    busy=message["busy"],
                    workers=frozenset(message["workers"]),
                )
                self._policy.heard(status, time.monotonic())
                if self._policy.is_complete:
                    self._starter.tell_success()
            case "scale":
                self._policy.scale(message["n"])
                is_ours = self._owns_files()
                self._record = replace(self._record, workers=self._policy.target)
                if is_ours:
                    records.write(self._record, self._home)
            case "retiring":
                self._policy.retiring(message["names"])
            case "kept":
                self._policy.kept(message["names"])
            case "stop":
                self._policy.stop(message["reason"])

    def _reap(self) -> None:
        """Take leave of every child that has ended, the adopted ones too."""
        names = {child.pid: name for name, child in self._children.items()}
        while (found := _ended_child()) is not None:
            name = names.get(found)
            if name is not None:
                self._children[name].kill()  # its group, while the number is still taken
            _, status = os.waitpid(found, 0)
            if name is not None:
                self._exited(name, os.waitstatus_to_exitcode(status))
            elif found == self._stem.pid:
                self._stem.exited()

    def _exited(self, name: str, code: int) -> None:
        logger.info("%s ended with %d", name, code)
        child = self._children.pop(name)
        with suppress(KeyError):
            self._selector.unregister(child.channel)
        child.channel.close()
        if name == SCHEDULER:
            self._policy.scheduler_exited()
        else:
            self._policy.worker_exited(name, time.monotonic())
            self._sweep_at = time.monotonic() + ORPHAN_GRACE_S

    def _kill_orphans(self, *, zygotes: bool = False) -> None:
        """End processes whose parents have all died: nobody else would. Zygotes without their stem do, in good time."""
        ours = {child.pid for child in self._children.values()} | {self._stem.pid}
        for pid in children.children_of_this_process() - ours:
            if not zygotes and process_name(pid) == ZYGOTE_NAME:
                continue
            logger.info("ending process %d, which a worker left behind", pid)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    # -- the end

    def _end(self, end: End) -> None:
        logger.info("ending: %s", end.reason)
        self._starter.tell_failure(end.reason, self._folder / "log")
        is_ours = self._owns_files()
        if self._record.address and is_ours:
            with suppress(OSError):  # a full disk must not keep the cluster
                records.write(replace(self._record, state="ending"), self._home)
        self._stem.close()
        if SCHEDULER in self._children:
            self._children[SCHEDULER].channel.send(op="end", reason=end.reason)
        else:
            for child in self._children.values():
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + END_TIMEOUT_S
        while self._children and (left := deadline - time.monotonic()) > 0:
            self._wait(left)
            if SCHEDULER not in self._children:  # it has told all the others to end
                deadline = min(deadline, time.monotonic() + WORKERS_END_S)
        for child in self._children.values():
            child.kill()
        while self._children or children.children_of_this_process():
            self._kill_orphans(zygotes=True)
            self._wait(0.02)
        if is_ours:
            records.remove(self._record.name, self._home)

    # -- signals

    def _listen_for_signals(self) -> None:
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(signum, lambda *_: None)  # to be woken; `heard` acts
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._wake = wake  # closed when the process ends

        def heard() -> None:
            for signum in woken.recv(4096):
                if signum in (signal.SIGTERM, signal.SIGINT):
                    self._policy.stop(f"told to by {signal.Signals(signum).name}")
                elif signum == signal.SIGUSR1:
                    self._policy.superseded()

        self._selector.register(woken, selectors.EVENT_READ, heard)


def _ended_child() -> int | None:
    """The number of a child that has ended and was not waited for yet; it stays a zombie."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The supervisor's command. Its caller returns at once; the supervisor has no parent to wait for it."""
    options = _options(arguments)
    if os.fork():
        os._exit(0)
    os.setsid()
    starter = Starter(options.notify, StartLock(lock_path(options.name, options.home), options.lock))
    try:
        _supervise(options, starter)
    except BaseException as error:
        logging.exception("the supervisor failed")
        where = f" (in {options.home})" if isinstance(error, OSError) and error.filename is None else ""
        starter.tell_failure(
            f"{type(error).__name__}: {error}{where}", records.folder_of(options.name, options.home) / "log"
        )
        records.remove(options.name, options.home)  # its processes end with it
    logging.shutdown()
    os._exit(0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="jupyter_train.cluster.supervisor", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--fingerprint", required=True)
    parser.add_argument("--workers", required=True, type=int)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--idle-timeout", required=True, type=float, help="seconds")
    parser.add_argument(
        "--notify", type=int, default=None, help="file descriptor that hears how the start went"
    )
    parser.add_argument("--lock", type=int, default=None, help="file descriptor of the lock on starting")
    return parser.parse_args(arguments)


def _supervise(options: argparse.Namespace, starter: Starter) -> None:
    logging.basicConfig(format="%(asctime)s - %(name)s - %(levelname)s - %(message)s", level=logging.INFO)
    started = time.time()
    children.adopt_orphans()
    # Everything that a child needs, once for all of them.
    from jupyter_train.cluster import scheduler_process, worker_process  # noqa: F401
    from jupyter_train.cluster.security import write_certificates

    process = this_process()
    record = ClusterRecord(
        name=options.name,
        kind="local",
        address="",
        workers=options.workers,
        threads=options.threads,
        pid=process.pid,
        pid_started=process.started,
        hostname=socket.gethostname(),
        fingerprint=options.fingerprint,
        prefix=sys.prefix,
        version=__version__,
        created=started,
        idle_timeout_s=options.idle_timeout,
    )
    write_certificates(record.folder(options.home))
    gc.collect()
    gc.freeze()  # else a child's first collection would copy every page it shares
    policy = Policy(workers=options.workers, idle_timeout_s=options.idle_timeout, now=time.monotonic())
    Supervisor(record, policy, home=options.home, starter=starter).run()


if __name__ == "__main__":
    main()
