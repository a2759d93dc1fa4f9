"""Dask's scheduler and worker without their web servers.

With no routes and no dashboard they would still listen for HTTP, which TLS
for Dask's own connections does not cover. Nothing at all listens instead.
"""

from __future__ import annotations

from typing import Any

import distributed

HOST = "127.0.0.1"

#: Dask configuration of the cluster's processes; anything else is the user's own.
CONFIG: dict[str, object] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # The supervisor sees a process die. By heartbeats a laptop that slept
    # overnight would lose its workers, and the runs on them, when it wakes.
    "distributed.scheduler.worker-ttl": None,
    # A training is not memory of Dask's to manage; see also memory_limit=0.
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # Dask watches itself for its dashboard, which is not there. Every core belongs to the training:
    # scheduler and two workers at rest go from 5.5 % of a core to 1 %.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    # Nobody looks at what an agent's own client knows of the scheduler.
    "distributed.client.scheduler-info-interval": "1h",
}


def keep_no_spans(extensions: dict[str, Any]) -> None:
    """Leave out what grows with every run for as long as the cluster lives.

    Dask opens a span for each batch of tasks that follows an idle moment, keeps all of them with all their groups
    for its dashboard, and adds up what workers measured in each.
    """
    extensions.pop("spans", None)


class NoServer:
    """Stands where Dask's clients look for the dashboard's port when they describe themselves."""

    port = 0

    def stop(self) -> None:
        """Nothing was started."""


class Scheduler(distributed.Scheduler):  # type: ignore[misc]
    """A scheduler that serves Dask's own protocol alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        keep_no_spans(self.extensions)

    def start_http_server(self, *_args: Any, **_kwargs: Any) -> None:
        """Listen to nobody."""
        self.services["dashboard"] = NoServer()


class Worker(distributed.Worker):  # type: ignore[misc]
    """A worker that serves Dask's own protocol alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        keep_no_spans(self.extensions)

    def start_http_server(self, *_args: Any, **_kwargs: Any) -> None:
        """Listen to nobody."""
