"""Where a rank's events go: its spool file first, then its agent.

The file, ``spool-<attempt>-<rank>.events`` in the run's folder, is the last
truth when the worker dies with events on their way.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from pathlib import Path

from jupyter_train.home import private_folder
from jupyter_train.runtime.channel import Cause, FrameKind, cause_frame, frame, split_events

SPOOL_TAIL_BYTES = 4 << 20
SPOOL_MOST_BYTES = 32 << 20  #: then only the tail is kept: the rest has long been in the journal

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def spool_name(attempt: int | str, rank: int | str) -> str:
    """File name of a rank's spool; each may be ``*``."""
    return f"spool-{attempt}-{rank}.events"


def read_spools(folder: Path, attempt: int) -> list[bytes]:
    """The packed events of one attempt's ranks that lie in a run's folder; half-written ones are left out.

    Of each rank the last 4 MiB: what came before has reached the controller long ago.
    """
    found: list[bytes] = []
    for path in sorted(folder.glob(spool_name(attempt, "*"))):
        try:
            data = path.read_bytes()
        except OSError:
            continue  # removed meanwhile: the others still count
        events = split_events(data)
        size = 0
        kept = 0
        while kept < len(events) and size < SPOOL_TAIL_BYTES:
            kept += 1
            size += len(events[-kept])
        found += events[len(events) - kept :]
    return found


class ChannelSink:
    """A `Sink` over a spool file and the rank's socket. A broken one loses nothing of the other."""

    def __init__(self, channel: socket.socket, spool: Path) -> None:
        self._channel: socket.socket | None = channel
        self._spool = spool
        self._file = -1
        self._size = 0
        self._starts: deque[int] = deque(
            [0]
        )  #: where the newest batches begin in the file; the first: the tail
        try:
            private_folder(spool.parent)
            self._file = os.open(spool, _FLAGS, 0o600)
        except OSError:
            pass  # a full or read-only disk: the agent still gets everything

    def events(self, packed: list[bytes], *, urgent: bool) -> None:
        """See `Sink`."""
        if not packed:
            return
        body = b"".join(packed)
        if self._file >= 0:
            try:
                self._keep(body)
            except OSError:
                self.close()
        self._send(frame(FrameKind.URGENT_EVENTS if urgent else FrameKind.EVENTS, body))

    def word(self, kind: FrameKind, told: Cause | bytes | None = None) -> None:
        """See `Sink`."""
        self._send(cause_frame(told) if isinstance(told, Cause) else frame(kind, told or b""))

    def close(self) -> None:
        """See `Sink`. The channel stays open: its end tells the agent about the process."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _keep(self, body: bytes) -> None:
        os.write(self._file, body)
        self._size += len(body)
        self._starts.append(self._size)
        while len(self._starts) > 2 and self._size - self._starts[1] >= SPOOL_TAIL_BYTES:
            self._starts.popleft()
        if self._size > SPOOL_MOST_BYTES:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """A file that holds the tail alone takes the place of the long one, in one step for whoever reads it."""
        new = self._spool.with_name(self._spool.name + ".part")
        with self._spool.open("rb") as old:
            old.seek(self._starts[0])
            tail = old.read()
        file = os.open(new, _FLAGS | os.O_TRUNC, 0o600)
        try:
            os.write(file, tail)
            new.replace(self._spool)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size, self._starts = file, len(tail), deque([0])

    def _send(self, data: bytes) -> None:
        if self._channel is None:
            return
        try:
            self._channel.sendall(data)
        except OSError:
            self._channel = None  # the agent is gone, and this process within moments
