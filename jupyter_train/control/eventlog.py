"""The events of one run, numbered: what comes twice is left out, the newest stay in memory."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from jupyter_train.record import Event, pack_event

KEEP_BYTES = 8 * 2**20

_PREFIX = struct.Struct("<IBI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """Events as the journal takes them."""

    events: list[Event]
    packed: list[bytes]  #: the same ones


class EventLog:
    """Numbers the events of one run from 1, and keeps about the last ``keep_bytes`` of them. Not thread-safe."""

    def __init__(self, run_id: str, *, keep_bytes: int = KEEP_BYTES) -> None:
        self.run_id = run_id
        self.last = 0  #: number of the newest event
        self._keep_bytes = keep_bytes
        self._kept: list[bytes] = []  #: the newest ones, their numbers end at ``last``
        self._kept_bytes = 0
        self._marks: dict[tuple[int, int], int] = {}  #: (attempt, rank) → newest rank_seq

    @property
    def first(self) -> int:
        """Number of the oldest event in memory (``last + 1`` where there is none)."""
        return self.last - len(self._kept) + 1

    def mark(self, attempt: int, rank: int) -> int:
        """The newest ``rank_seq`` that was taken from that rank."""
        return self._marks.get((attempt, rank), 0)

    def add(self, events: Iterable[tuple[Event, bytes | None]]) -> Numbered:
        """Number those that are new; each comes with its bytes where the caller has them.

        Raises:
            TypeError: an event holds what cannot be packed; those before it are taken.
        """
        new = Numbered(events=[], packed=[])
        for event, data in events:
            if event.rank is not None and event.rank_seq:
                if event.rank_seq <= self.mark(event.attempt, event.rank):
                    continue
                self._marks[event.attempt, event.rank] = event.rank_seq
            numbered = replace(event, seq=self.last + 1)
            stamped = stamp(data, numbered) if data is not None else None
            packed = pack_event(numbered) if stamped is None else stamped
            self.last += 1
            self._kept.append(packed)
            self._kept_bytes += len(packed)
            new.events.append(numbered)
            new.packed.append(packed)
        if self._kept_bytes > 2 * self._keep_bytes:
            self._shrink(self._keep_bytes)
        return new

    def after(self, seq: int, *, at_most_bytes: int) -> list[bytes] | None:
        """Events numbered above ``seq``, one at least where there is any; None: memory does not reach back so far."""
        at = max(seq, 0) + 1 - self.first
        if at < 0:
            return None
        out: list[bytes] = []
        size = 0
        while at < len(self._kept) and (not out or size + len(self._kept[at]) <= at_most_bytes):
            out.append(self._kept[at])
            size += len(self._kept[at])
            at += 1
        return out

    def forget(self) -> None:
        """Keep no events in memory: the run is over and the journal has them."""
        self._shrink(0)

    def _shrink(self, to_bytes: int) -> None:
        left_out = 0
        while left_out < len(self._kept) and self._kept_bytes > to_bytes:
            self._kept_bytes -= len(self._kept[left_out])
            left_out += 1
        del self._kept[:left_out]


def stamp(data: bytes, numbered: Event) -> bytes | None:
    """``data``, the bytes of an event that had no number yet, with the number of ``numbered`` put in.

    Its arrays are not touched, which is what makes relaying cheap. None where
    the head does not begin as our own ``pack_event`` writes it.
    """
    if len(data) < _PREFIX.size:
        return None
    length, version, head_size = _PREFIX.unpack_from(data)
    start = b'{"run_id":"%s","seq":' % numbered.run_id.encode()
    if not data.startswith(start + b"0,", _PREFIX.size):
        return None
    number = b"%d" % numbered.seq
    more = len(number) - 1
    at = _PREFIX.size + len(start)
    return b"".join(
        (_PREFIX.pack(length + more, version, head_size + more), start, number, memoryview(data)[at + 1 :])
    )
