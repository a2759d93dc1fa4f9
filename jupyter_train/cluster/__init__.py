"""Clusters: start, find, scale, end, and connect to them.

    open_cluster(name=None, *, ranks=None) -> Connection     the cluster for a run, started if need be
    use(name | address | Client) -> Connection               make it the current one
    current() -> Connection | None
    clusters() -> list[ClusterRecord]                        what was started here and lives
    start_local(n=None, *, threads=None, idle_timeout_s=1800, home=None) -> Connection
    stop(name=None) -> str                                   returns when processes and files are gone
    close()                                                  let go of all; they live on

The package itself can be called: ``jt.cluster("lab")`` is ``open_cluster("lab")``.

Names are looked up when they are used: importing this package imports neither
dask nor torch.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_train.cluster.connect import close, clusters, current, open_cluster, start_local, stop, use
    from jupyter_train.cluster.connection import Connection
    from jupyter_train.cluster.local import find_local
    from jupyter_train.cluster.records import ClusterRecord

_HOME = {
    "ClusterRecord": "records",
    "Connection": "connection",
    "clusters": "connect",
    "close": "connect",
    "current": "connect",
    "find_local": "local",
    "open_cluster": "connect",
    "start_local": "connect",
    "stop": "connect",
    "use": "connect",
}

__all__ = [
    "ClusterRecord",
    "Connection",
    "close",
    "clusters",
    "current",
    "find_local",
    "open_cluster",
    "start_local",
    "stop",
    "use",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


class _CallablePackage(ModuleType):
    def __call__(self, name: str | None = None, *, ranks: int | None = None) -> Connection:
        """See `open_cluster`."""
        connection: Connection = self.open_cluster(name, ranks=ranks)
        return connection


sys.modules[__name__].__class__ = _CallablePackage
