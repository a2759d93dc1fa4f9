"""Process groups of our own on the run's store; torch's default group stays unset, so that user code behaves as in one process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from jupyter_train.runtime.parallel.errors import PeerLost

FOREVER = timedelta(days=30)  #: a slow peer is waited for; a lost one is noticed by its connection
SMALL_BYTES = 4096  #: of an exchanged object that goes in one collective
PATIENCE = timedelta(milliseconds=500)  #: then look whether the others can still come


class Groups:
    """The collectives of one run: ``data`` for gradients, ``control`` for everything small on the host.

    Main thread of a rank. ``on_wait`` is called every half second while a
    collective waits, and with the error when one breaks; it may raise a better one.
    """

    def __init__(
        self, *, rank: int, world_size: int, store: Store, device: torch.device, prefix: str = "jt"
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.store = PrefixStore(prefix, store)
        self.on_wait: Callable[[BaseException | None], None] | None = None
        self.control = self._gloo("control")
        self.data = (
            self._nccl("data", device)
            if device.type == "cuda" and dist.is_nccl_available()
            else self._gloo("data")
        )

    def _gloo(self, name: str) -> Any:
        return dist.ProcessGroupGloo(PrefixStore(name, self.store), self.rank, self.world_size, FOREVER)

    def _nccl(self, name: str, device: torch.device) -> Any:
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = FOREVER
        return dist.ProcessGroupNCCL(PrefixStore(name, self.store), self.rank, self.world_size, options)

    def wait(self, work: Any) -> None:
        """Wait for ``work``; a peer that is only slow is waited for without end.

        Raises:
            PeerLost: the connection broke, and nothing better is known.
        """
        while True:
            try:
                work.wait(PATIENCE)
                return
            except RuntimeError as error:
                self.look(error if "timed out" not in str(error).lower() else None)

    def look(self, broken: Exception | None) -> None:
        """While waiting: whether the others can still come.

        Args:
            broken: what broke a connection; None: it only takes long.

        Raises:
            PeerLost: the connection broke, and ``on_wait`` knows nothing better.
        """
        if self.on_wait is not None:
            self.on_wait(broken)
        if broken is not None:
            raise PeerLost(f"another rank was lost: {str(broken).splitlines()[0][:200]}") from None

    def all_gather(self, row: torch.Tensor) -> torch.Tensor:
        """Everybody's ``row`` (1-d, the same length everywhere), shape ``(ranks, len(row))``, on its device."""
        out = torch.empty(self.world_size * row.numel(), dtype=row.dtype, device=row.device)
        group = self.control if row.device.type == "cpu" else self.data
        self.wait(group._allgather_base(out, row.contiguous()))
        return out.view(self.world_size, -1)

    def all_sum(self, tensor: torch.Tensor) -> None:
        """Make ``tensor`` the sum over the ranks, in place."""
        group = self.control if tensor.device.type == "cpu" else self.data
        self.wait(group.allreduce([tensor]))

    def exchange(self, value: Any) -> list[Any]:
        """Everybody's ``value``, any small object that pickles, by rank. One collective while all are small."""
        data = np.frombuffer(pickle.dumps(value), np.uint8)
        row = np.zeros(SMALL_BYTES, np.uint8)
        row[:8] = np.frombuffer(np.int64(len(data)).tobytes(), np.uint8)
        head = data[: SMALL_BYTES - 8]
        row[8 : 8 + len(head)] = head
        rows = self.all_gather(torch.from_numpy(row)).numpy()
        sizes = [int(rows[r, :8].copy().view(np.int64)[0]) for r in range(self.world_size)]
        start = 8
        if max(sizes) > SMALL_BYTES - 8:
            whole = np.zeros(max(sizes), np.uint8)
            whole[: len(data)] = data
            rows, start = self.all_gather(torch.from_numpy(whole)).numpy(), 0
        return [pickle.loads(rows[r, start : start + size].tobytes()) for r, size in enumerate(sizes)]

    def close(self) -> None:
        """Break the connections, so that whoever waits for this rank learns of it."""
        for group in (self.control, self.data):
            try:
                group.abort()
            except (RuntimeError, AttributeError):
                pass  # already broken, or a backend without it
