"""The clusters of one kernel process: found, started or given, and connected to once.

There is one `Connection` per cluster, and one of them is the current one.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import re
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_train.cluster import local, records
from jupyter_train.cluster.connection import Connection, Kind
from jupyter_train.cluster.fingerprint import fingerprint
from jupyter_train.cluster.records import ClusterRecord
from jupyter_train.cluster.size import crowding_remark, usable_cores
from jupyter_train.errors import ClusterError, ClusterUnreachable

if TYPE_CHECKING:
    from distributed import Client, Security

ADDRESS = re.compile(r"[a-z]+://\S+")
HOST_AND_PORT = re.compile(r"[A-Za-z0-9_.-]+:[0-9]{1,5}")
#: A client asks for a description of all workers every 2 s, for pictures that we do not show.
QUIET_CLIENT = {"distributed.client.scheduler-info-interval": "1h"}
CONNECT_TIMEOUT_S = 15.0


class Session:
    """The connections of one kernel process. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connections: dict[str, Connection] = {}  # by address
        self._current: Connection | None = None
        self._pid = os.getpid()

    @property
    def current(self) -> Connection | None:
        """The cluster that a run without ``--cluster`` goes to, if there is one; waits for nobody's start."""
        return self._current if self._pid == os.getpid() else None

    def open(self, name: str | None = None, *, ranks: int | None = None) -> Connection:
        """The cluster for a run of so many ranks: see `connect.open_cluster`."""
        with self._lock:
            self._forget_if_forked()
            connection = self._current_or_local(ranks) if name is None else self._resolve(name, ranks)
            if self._current is None:
                self._current = connection
            if connection.kind == "local":
                self._make_room(connection, ranks)
            return connection

    def use(self, target: str | Client) -> Connection:
        """Make a cluster the current one: see `connect.use`."""
        with self._lock:
            self._forget_if_forked()
            connection = self._resolve(target, None) if isinstance(target, str) else self._from_client(target)
            self._current = connection
            return connection

    def start(
        self, n: int | None, *, threads: int | None, idle_timeout_s: float, home: Path | None
    ) -> Connection:
        """Our local cluster, made the current one: see `connect.start_local`."""
        with self._lock:
            self._forget_if_forked()
            connection = self._local(n, threads=threads, idle_timeout_s=idle_timeout_s, home=home)
            self._current = connection
            self._make_room(connection, n)
            return connection

    def stop(self, name: str | None = None) -> str:
        """End a cluster: see `connect.stop`."""
        with self._lock:
            self._forget_if_forked()
            connection = self._current if name is None else self._known(name)
            if connection is not None and connection.is_alive:
                connection.stop()
                self._drop(connection)
                return connection.name
            record = self._record(name or "local")
            if record is None:
                raise ClusterError(_no_cluster(name or "local"))
        local.stop_record(record)
        return record.name

    def close(self) -> None:
        """Let go of every cluster; they live on. Twice does nothing."""
        with self._lock:
            for connection in list(self._connections.values()):
                self._drop(connection)
                connection.close()

    # -- finding

    def _current_or_local(self, ranks: int | None) -> Connection:
        current = self._current
        if current is None:
            return self._local(ranks)
        if current.is_alive:
            return current
        self._drop(current)
        current.close()
        if current.kind == "local":  # it ended while nobody needed it
            return self._local(ranks)
        raise ClusterUnreachable(
            f"the cluster {current.name} is gone. Start it again and  %train cluster use {current.name},  "
            "or run the cell again to train on this machine"
        )

    def _resolve(self, name: str, ranks: int | None) -> Connection:
        if name == "local":
            return self._local(ranks)
        if HOST_AND_PORT.fullmatch(name):
            name = f"tcp://{name}"
        known = self._known(name)
        if known is not None:
            if known.is_alive:
                return known
            self._drop(known)
            known.close()
        record = self._record(name)
        if record is not None:
            return self._connect_record(record)
        if ADDRESS.fullmatch(name):
            return self._connect(name, name=name, kind="address", security=None)
        raise ClusterError(_no_cluster(name))

    def _known(self, name: str) -> Connection | None:
        if name == "local":
            name = local.local_name()
        return next((c for c in self._connections.values() if name in (c.name, c.address)), None)

    def _record(self, name: str) -> ClusterRecord | None:
        if name == "local":
            return local.find_local()
        return next((r for r in records.live() if name in (r.name, r.address)), None)

    # -- connecting

    def _local(
        self,
        n: int | None,
        *,
        threads: int | None = None,
        idle_timeout_s: float = local.IDLE_TIMEOUT_S,
        home: Path | None = None,
    ) -> Connection:
        """Ours, started where it is not running. Twice: the found one may be ending just now."""
        for attempt in range(2):
            with local.starting(n, threads=threads, idle_timeout_s=idle_timeout_s, home=home) as start:
                import distributed  # noqa: F401  0.5 s that pass while the supervisor starts

                record = start.wait()
            try:
                return self._connect_record(record, home)
            except ClusterUnreachable:
                if attempt:
                    raise
        raise AssertionError("not reached")

    def _connect_record(self, record: ClusterRecord, home: Path | None = None) -> Connection:
        known = self._connections.get(record.address)
        if known is not None and known.is_alive:
            return known
        from jupyter_train.cluster.security import cluster_security

        return self._connect(
            record.address,
            name=record.name,
            kind="local",
            security=cluster_security(record.folder(home)),
            record=record,
            home=home,
        )

    def _connect(
        self,
        address: str,
        *,
        name: str,
        kind: Kind,
        security: Security | None,
        record: ClusterRecord | None = None,
        home: Path | None = None,
    ) -> Connection:
        import dask
        from distributed import Client

        from jupyter_train.cluster.loopthread import LoopThread
        from jupyter_train.cluster.randomness import keep_apart

        keep_apart()
        with ExitStack() as undo:
            thread = LoopThread()
            undo.callback(thread.end)
            try:
                with dask.config.set(QUIET_CLIENT):
                    client = Client(
                        address,
                        security=security,
                        set_as_default=False,
                        timeout=CONNECT_TIMEOUT_S,
                        name="kernel",
                        loop=thread.loop,
                    )
            except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
                raise ClusterUnreachable(
                    f"nothing answers at {address}: {_first_line(error)}. Is a Dask scheduler running there, can this "
                    "machine reach it, and does it use TLS (tls://) with the certificates of your Dask config?"
                ) from error
            undo.callback(_close_client, client)
            connection = self._take(client, name=name, kind=kind, record=record, home=home)
            connection.loop_ends = thread.end
            undo.pop_all()
        logging.getLogger("distributed.client").addFilter(self._is_news)
        return connection

    def _from_client(self, client: Client) -> Connection:
        for connection in self._connections.values():
            if connection.client is client and connection.is_alive:
                return connection
        if getattr(client, "asynchronous", False):
            raise ClusterError("an asynchronous Client cannot be used: make one without asynchronous=True")
        if client.status != "running":
            raise ClusterUnreachable(f"the Client is {client.status}: connect it, then use it")
        return self._take(client, name=str(client.scheduler.address), kind="client")

    def _take(
        self,
        client: Client,
        *,
        name: str,
        kind: Kind,
        record: ClusterRecord | None = None,
        home: Path | None = None,
    ) -> Connection:
        from jupyter_train.cluster import environment
        from jupyter_train.control.client import ControllerClient, ensure
        from jupyter_train.runtime.agent import Agent

        if record is None or record.fingerprint != fingerprint():  # else it is of our own environment
            environment.check(client, name=name)
        ensure(client, Agent())
        connection = Connection(
            name=name, kind=kind, client=client, control=ControllerClient(client), record=record, home=home
        )
        self._connections[connection.address] = connection
        return connection

    def _make_room(self, connection: Connection, ranks: int | None) -> None:
        """Have a worker for each of so many ranks; without a number, all workers that there should be."""
        record = connection.record
        assert record is not None
        there = len(connection.workers())
        if ranks is not None and ranks > max(there, record.workers):
            connection.scale(ranks)
            connection.record = records.read(record.name, connection.home) or record
        elif there < (ranks or record.workers):
            connection.wait_for_workers(ranks or record.workers)
        remark = crowding_remark(
            ranks or len(connection.workers()), usable_cores(), asked_for=ranks is not None
        )
        connection.remarks = [remark] if remark else []

    # -- keeping

    def _drop(self, connection: Connection) -> None:
        self._connections.pop(connection.address, None)
        if self._current is connection:
            self._current = None

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Whether a line of Dask's client is for the user: that one of our clusters ended is not."""
        # Closing a client ends its tries to reconnect, which Dask logs with a traceback of 30 lines.
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return False
        lost = str(record.msg).startswith("Failed to reconnect to scheduler")
        return not lost or all(c.client.status == "running" for c in list(self._connections.values()))

    def _forget_if_forked(self) -> None:
        """A forked child must not speak on its parent's sockets."""
        if self._pid != os.getpid():
            self._connections, self._current, self._pid = {}, None, os.getpid()


def _no_cluster(name: str) -> str:
    names = ["local", *(record.name for record in records.live())]
    if name == "local":
        return "no local cluster of this environment is running"
    near = difflib.get_close_matches(name, names, 1, 0.6)
    hint = (
        f" Did you mean {near[0]}?"
        if near
        else f" There is: {', '.join(names)}; an address looks like tcp://host:8786."
    )
    return f"there is no cluster {name!r}.{hint}"


def _close_client(client: Client) -> None:
    with suppress(OSError, TimeoutError):
        client.close(timeout=2)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
