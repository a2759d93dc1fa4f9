"""What still has to be written: a queue with a bound, and what is left out when it is reached.

Decides only; the journal's writer calls it under its lock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from jupyter_train.record import Event, EventKind

_LEFT_OUT_FIRST = frozenset({EventKind.METRICS, EventKind.USAGE, EventKind.LOG})
_SUMMED_UP = frozenset({EventKind.STATE, EventKind.METRICS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One event to be written."""

    run_id: str
    seq: int
    data: bytes
    event: Event | None  #: where the summary row needs it


def kept_for_summary(event: Event) -> Event | None:
    """``event`` where the row of its run tells of it."""
    return event if event.kind in _SUMMED_UP else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Events that were left out for want of room: a stretch of one run's numbers."""

    run_id: str
    first_seq: int
    seq: int  #: the last one
    count: int
    why: str = "the disk of the journal was full or failed"


class Backlog:
    """Items in order. Where they exceed ``bound_bytes``, metrics, usage and logs are left out.

    States, errors, artifacts and checkpoints say what became of the run, and
    they are few: they have room up to twice the bound. What is left out is
    remembered as gaps, in its place between the others.
    """

    def __init__(self, bound_bytes: int) -> None:
        self.bound_bytes = bound_bytes
        self.size_bytes = 0  #: of what waits and of what was taken and not released
        self.added = 0  #: items and gaps ever put in the queue
        self.taken = 0  #: of these
        self._waiting: deque[Item | Gap] = deque()
        self._gaps: dict[str, Gap] = {}  #: per run, still growing

    def __bool__(self) -> bool:
        return bool(self._waiting or self._gaps)

    @property
    def open_gaps(self) -> int:
        """Gaps that still grow: they are counted in ``added`` when they are taken or followed by an item."""
        return len(self._gaps)

    def add(self, event: Event, data: bytes) -> bool:
        """Put ``event`` last; False if it was left out."""
        bound = self.bound_bytes * (1 if event.kind in _LEFT_OUT_FIRST else 2)
        if self.size_bytes + len(data) > bound:
            gap = self._gaps.get(event.run_id)
            if gap is None:
                gap = Gap(run_id=event.run_id, first_seq=event.seq, seq=event.seq, count=1)
            else:
                gap = replace(gap, seq=event.seq, count=gap.count + 1)
            self._gaps[event.run_id] = gap
            return False
        self._close_gap(event.run_id)
        self._put(Item(run_id=event.run_id, seq=event.seq, data=data, event=kept_for_summary(event)))
        self.size_bytes += len(data)
        return True

    def take(self, at_most_bytes: int) -> list[Item | Gap]:
        """The first items (one at least), which still count as held until they are released."""
        for run_id in list(self._gaps):
            self._close_gap(run_id)
        taken: list[Item | Gap] = []
        size = 0
        while self._waiting and (not taken or size < at_most_bytes):
            item = self._waiting.popleft()
            taken.append(item)
            size += len(item.data) if isinstance(item, Item) else 0
        self.taken += len(taken)
        return taken

    def release(self, taken: list[Item | Gap]) -> None:
        """``taken`` has been written."""
        self.size_bytes -= sum(len(item.data) for item in taken if isinstance(item, Item))

    def _close_gap(self, run_id: str) -> None:
        gap = self._gaps.pop(run_id, None)
        if gap is not None:
            self._put(gap)

    def _put(self, item: Item | Gap) -> None:
        self._waiting.append(item)
        self.added += 1
