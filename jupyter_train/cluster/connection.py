"""One cluster as this kernel sees it: the Dask client, the controller behind it, and its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jupyter_train.cluster import records
from jupyter_train.cluster.records import ClusterRecord
from jupyter_train.errors import ClusterError, ClusterUnreachable

if TYPE_CHECKING:
    from distributed import Client

    from jupyter_train.control.client import ControllerClient

Kind = Literal["local", "address", "client"]

READY_TIMEOUT_S = 60.0  # a worker that is not there by then has failed, and its log says why


class Connection:
    """A kernel's connection to one cluster. Its methods may be called from any thread.

    Attributes:
        name: what ``%train cluster use`` takes: a local cluster's name, or an address.
        kind: ``local`` for ours, ``address`` for another's, ``client`` for a Client of the user's.
        address: of the scheduler.
        client: the Dask client, never made the default one.
        control: the controller in the scheduler.
        record: of ours, else None.
        home: where its record lies, None for the user's folder.
        remarks: sentences about the last `open_cluster` that the user should read, such as more ranks than cores.
    """

    def __init__(
        self,
        *,
        name: str,
        kind: Kind,
        client: Client,
        control: ControllerClient,
        record: ClusterRecord | None = None,
        home: Path | None = None,
    ) -> None:
        self.name = name
        self.kind: Kind = kind
        self.address: str = record.address if record else str(client.scheduler.address)
        self.client = client
        self.control = control
        self.record = record
        self.remarks: list[str] = []
        self.home = home
        self.loop_ends: Callable[[], object] = lambda: None  #: ends the event loop that was started for it

    def __repr__(self) -> str:
        return f"<Connection to {self.name} at {self.address}, {'alive' if self.is_alive else 'gone'}>"

    @property
    def is_alive(self) -> bool:
        """Whether the scheduler was there when we last heard of it, and, if it is ours, is not ending. Asks nobody."""
        if self.client.status != "running":
            return False
        if self.record is None:
            return True
        now = records.read(self.record.name, self.home)
        return (
            now is not None and now.process == self.record.process and now.state == "running" and now.is_alive
        )

    def workers(self) -> list[Mapping[str, Any]]:
        """The workers, as the controller's ``train_hello`` tells of them.

        Raises:
            ClusterUnreachable: the scheduler does not answer.
        """
        return list(self.control.hello()["workers"])

    def scale(self, n: int, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Make it ``n`` workers, and wait until at least that many are there.

        Workers with ranks are not taken: where fewer are idle than would have to
        go, the rest go when their runs end.

        Raises:
            ClusterError: not a cluster of ours, a number that it cannot have, or workers that do not start.
        """
        if self.record is None:
            raise ClusterError(f"the cluster {self.name} was not started here: scale it where it was started")
        answer = self._ask("cluster_scale", n=n)
        if "error" in answer:
            raise ClusterError(str(answer["error"]))
        self.wait_for_workers(n, timeout_s=timeout_s)

    def wait_for_workers(self, n: int, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until at least ``n`` workers are there.

        Raises:
            ClusterError: they are not, ``timeout_s`` seconds later.
            ClusterUnreachable: the scheduler is gone.
        """
        try:
            self.client.wait_for_workers(n, timeout=timeout_s)
        except TimeoutError:
            there = len(self.workers())
            where = f" Why not stands in {self.record.folder(self.home)}/log." if self.record else ""
            raise ClusterError(
                f"the cluster {self.name} has {there} of {n} workers after {timeout_s:.0f} s.{where}"
            ) from None
        except OSError as error:
            raise ClusterUnreachable(f"the cluster {self.name} does not answer any more: {error}") from error

    def stop(self, *, timeout_s: float = 20.0) -> None:
        """End the cluster; returns when its processes and files are gone.

        Raises:
            ClusterError: it was not started here.
        """
        from jupyter_train.cluster.local import stop_record

        record = self.record
        if record is None:
            raise ClusterError(f"the cluster {self.name} was not started here: end it where it was started")
        with suppress(ClusterUnreachable):  # a signal does it then
            self._ask("cluster_stop", reason="stopped by a kernel")
        self.close()
        stop_record(record, timeout_s=timeout_s, root=self.home)

    def close(self) -> None:
        """Let go of the cluster, which lives on. A Client of the user's stays open. Twice does nothing."""
        if self.kind != "client" and self.client.status != "closed":
            with suppress(OSError, TimeoutError):
                self.client.close(timeout=2)
        self.loop_ends()

    def _ask(self, operation: str, **values: Any) -> Mapping[str, Any]:
        """Call a handler of our scheduler process (`cluster.scheduler_process`)."""
        try:
            answer = self.client.sync(
                getattr(self.client.scheduler, operation), **values, callback_timeout=10
            )
        except (OSError, TimeoutError) as error:
            raise ClusterUnreachable(f"the cluster {self.name} does not answer any more: {error}") from error
        return dict(answer)
