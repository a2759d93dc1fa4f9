"""Ranks of one host that add up through shared memory: signals between them, and the memory.

A byte over a Unix socket wakes a rank that waits, and the end of a socket says
that its rank is gone. Over loopback, gloo copies every gradient through the
kernel four times and wakes two threads for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import tempfile

import torch

from jupyter_train.runtime.parallel.groups import PATIENCE, Groups
from jupyter_train.runtime.parallel.hostmemory import host_memory

MOST_RANKS = 8  #: each adds up everything itself, which is right for few
MOST_BYTES = 256 << 20  #: of one plan, all ranks together
TAGS = 251  #: a signal is one byte: what it is for, so that ranks which are out of step notice
_MEET_S = 10.0  #: for connections between processes that are all there already
_TIMEVAL = struct.pack("ll", 0, int(PATIENCE.total_seconds() * 1e6))


class Neighbours:
    """The other ranks of this host. Main thread of a rank (hooks: whatever thread runs autograd)."""

    def __init__(self, groups: Groups, sockets: list[socket.socket]) -> None:
        self._groups = groups
        self._sockets = sockets
        self._heard = [bytearray() for _ in sockets]  #: signals that came and were not waited for
        self._allocated = 0

    def signal(self, tag: int) -> None:
        """Tell all others that this rank's part of ``tag`` is written. One that is gone is noticed by :meth:`wait`."""
        byte = bytes([tag % TAGS])
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.send(byte)

    def wait(self, tag: int) -> bool:
        """Wait for every other rank's next signal; False where one's was for something else than ``tag``.

        Raises:
            PeerLost: a rank is gone.
            RanksDiverged: a rank stands somewhere else, and will not come.
        """
        for heard, one in zip(self._heard, self._sockets, strict=True):
            while not heard:
                try:
                    came = one.recv(256)
                except BlockingIOError:
                    self._groups.look(None)
                    continue
                except OSError as error:
                    self._groups.look(error)
                    continue
                if not came:
                    self._groups.look(ConnectionResetError("its process has ended"))
                heard.extend(came)
            if heard.pop(0) != tag % TAGS:
                return False
        return True

    def memory(self, size_bytes: int) -> memoryview | None:
        """Memory that all ranks see, zeroed; None on all where there is no room for it. Collective."""
        self._allocated += 1
        memory = host_memory(self._groups, f"memory/{self._allocated}", size_bytes)
        return None if memory is None else memoryview(memory)

    def close(self) -> None:
        """Cut the connections, so that whoever waits for this rank learns of it, also where a loader's worker has them."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def meet(groups: Groups) -> Neighbours | None:
    """Connect all ranks, which are on one host, with each other; None on all where that fails. Collective."""
    if not 2 <= groups.world_size <= MOST_RANKS:
        return None
    folder = ""
    if groups.rank == 0:
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix="jupyter-train-")
        groups.store.set("meet", folder)
    else:
        folder = groups.store.get("meet").decode()
    listener = _listen(folder, groups.rank)
    try:
        sockets = None
        if groups.all_gather(torch.tensor([listener is not None])).all().item() and listener is not None:
            sockets = _connect(folder, listener, groups)
        connected = groups.all_gather(torch.tensor([sockets is not None])).all().item()
    finally:
        if listener is not None:
            listener.close()
        if folder and groups.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
    if not connected:
        for one in sockets or ():
            one.close()
        return None
    return Neighbours(groups, sockets or [])


def _listen(folder: str, rank: int) -> socket.socket | None:
    if not folder:
        return None
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.settimeout(_MEET_S)
        listener.bind(os.path.join(folder, str(rank)))
        listener.listen(MOST_RANKS)
    except OSError:
        listener.close()
        return None
    return listener


def _connect(folder: str, listener: socket.socket, groups: Groups) -> list[socket.socket] | None:
    """A socket to each other rank: this one calls the lower ones, the higher ones call it."""
    sockets: list[socket.socket] = []
    try:
        for rank in range(groups.rank):
            one = socket.socket(socket.AF_UNIX)
            sockets.append(one)
            one.settimeout(_MEET_S)
            one.connect(os.path.join(folder, str(rank)))
        for _ in range(groups.rank + 1, groups.world_size):
            sockets.append(listener.accept()[0])
        for one in sockets:
            one.settimeout(None)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL)
    except OSError:
        for one in sockets:
            one.close()
        return None
    return sockets
