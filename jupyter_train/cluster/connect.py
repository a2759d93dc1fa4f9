"""Which cluster a kernel works with: what the magics and a notebook's Python call.

Nothing here is printed: remarks lie in `Connection.remarks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_train.cluster import local, records
from jupyter_train.cluster.connection import Connection
from jupyter_train.cluster.records import ClusterRecord
from jupyter_train.cluster.session import Session

if TYPE_CHECKING:
    from distributed import Client

_session = Session()


def open_cluster(name: str | None = None, *, ranks: int | None = None) -> Connection:
    """The cluster for a run: the named one, else the current one, else ours, started if need be.

    Returns when it can take a run: on ours when ``ranks`` workers are there
    (without ``ranks``, all that it should have). Called in the kernel.

    Raises:
        ClusterUnreachable: nothing answers there.
        ClusterError: no cluster of that name, or one that does not start.
        EnvironmentMismatch: its workers have another Python, torch or jupyter_train.
    """
    return _session.open(name, ranks=ranks)


def current() -> Connection | None:
    """The cluster that a run without ``--cluster`` goes to, if this kernel has one."""
    return _session.current


def use(target: str | Client) -> Connection:
    """Make a cluster the current one of this kernel.

    Args:
        target: ``local``, a name out of `clusters`, an address (``tls://…``, ``tcp://…``) or a
            `distributed.Client`, which stays the caller's.

    Raises:
        As `open_cluster`.
    """
    return _session.use(target)


def start_local(
    n: int | None = None,
    *,
    threads: int | None = None,
    idle_timeout_s: float = local.IDLE_TIMEOUT_S,
    home: Path | None = None,
) -> Connection:
    """This environment's local cluster as the current one, started where it is not running.

    Returns when its workers are there. One that runs already keeps its threads
    and its time-out, and grows to ``n`` workers where it has fewer.

    Args:
        n: workers; as many as were measured to be best for this machine where it is not given.
        threads: Dask threads per worker, 1 where it is not given; ranks are not among them.
        idle_timeout_s: seconds without a client and without a run after which it ends.
        home: folder of records and certificates, where it is not the user's.

    Raises:
        ClusterError: it did not start; the message has the end of its log.
    """
    return _session.start(n, threads=threads, idle_timeout_s=idle_timeout_s, home=home)


def clusters() -> list[ClusterRecord]:
    """The clusters that were started here and live, of any environment; oldest first."""
    return records.live()


def stop(name: str | None = None) -> str:
    """End a cluster of ours: the named one, else the current one, else this environment's.

    Returns when its processes and files are gone, with its name.

    Raises:
        ClusterError: there is none, or it was not started here.
    """
    return _session.stop(name)


def close() -> None:
    """Let go of every cluster of this kernel; they live on. Twice does nothing."""
    _session.close()
