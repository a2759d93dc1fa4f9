"""Hands the journal to readers on other machines, and knows what they have: a cluster should not end before.

A reader asks for what is above the numbers that it has *on its disk*, so that
each question also acknowledges. Event loop of the scheduler.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_train.control.live import LiveRun

REPLY_BYTES = 4 * 2**20
UNREAD_TIMEOUT = "10 minutes"  #: default of ``jupyter-train.unread-timeout``

Read = Callable[["LiveRun", int], Awaitable[tuple[list[bytes], int]]]
"""Packed events of a run above a number, and the number of the last one."""


class Readers:
    """Those of one controller.

    Args:
        read: gives the events of a run.
        unread_timeout_s: a cluster stays for so long after its last run for somebody who reads.
        clock: seconds, monotonic.
    """

    def __init__(
        self, read: Read, *, unread_timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._unread_timeout_s = unread_timeout_s
        self._clock = clock
        self._has: dict[str, int] = {}  #: run → number up to which some reader has it on disk
        self._reads_the_file = False

    async def answer(
        self, runs: Sequence[LiveRun], after: Mapping[str, int], *, reads_file: bool
    ) -> dict[str, Any]:
        """What a reader gets that has ``runs`` up to the numbers in ``after``.

        ``runs`` of the reply: by id, packed events, in order; empty where the
        reader has everything. ``active``: whether any run goes on.
        """
        self._reads_the_file = self._reads_the_file or reads_file
        for run_id in (run.spec.run_id for run in runs):
            self._has[run_id] = max(int(after.get(run_id, 0)), self._has.get(run_id, 0))
        new: dict[str, list[bytes]] = {}
        size = 0
        for run in () if reads_file else runs:
            if size >= REPLY_BYTES:
                break
            has = int(after.get(run.spec.run_id, 0))
            events = (await self._read(run, has))[0] if run.log.last > has else []
            if events:
                new[run.spec.run_id] = events
                size += sum(map(len, events))
        return {"runs": new, "active": any(not run.machine.is_over for run in runs)}

    def unread(self, runs: Iterable[LiveRun]) -> int:
        """How many ended runs there are of which nobody is known to have all events on disk."""
        if self._reads_the_file:
            return 0
        return sum(run.machine.is_over and self._has.get(run.spec.run_id, 0) < run.log.last for run in runs)

    def are_waited_for(self, runs: Iterable[LiveRun], last_end: float) -> bool:
        """Whether the cluster should stay for a reader; ``last_end`` of a run, by the clock."""
        return self._clock() - last_end < self._unread_timeout_s and self.unread(runs) > 0


def unread_timeout_s() -> float:
    """As Dask's configuration of this process has it."""
    import dask.config
    from dask.utils import parse_timedelta

    given = dask.config.get("jupyter-train.unread-timeout", default=None)
    return float(parse_timedelta(UNREAD_TIMEOUT if given is None else given, default="s"))
