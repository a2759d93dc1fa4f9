"""Loops that were split, must not be, and are done whole when the cell is started over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from jupyter_train.record import WholeLoop
from jupyter_train.runtime.parallel.errors import NotSplittable
from jupyter_train.runtime.parallel.sites import Site

_SHORTEST_S = 0.05  #: said at least: the clock of a cell that failed at its first batch shows less


class WholeLoops:
    """What is known of such loops when the cell begins, and what is found meanwhile. Main thread of a rank.

    Loops are told apart by file and line. The file of the cell itself is named
    by "", since each run has another name for it.
    """

    def __init__(
        self, known: Sequence[WholeLoop], *, cell_file: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._known = {(one.file, one.line): one for one in known}
        self._cell_file = cell_file
        self._clock = clock
        self._began = clock()

    def of(self, site: Site) -> WholeLoop | None:
        """What is known of the loop that begins at ``site``."""
        return self._known.get(self._key(site)) or self._known.get(("", 0))

    def found(self, sites: Iterable[Site], error: NotSplittable) -> tuple[WholeLoop, ...]:
        """The loops at ``sites``, which ``error`` says cannot be split."""
        after_s = max(self._clock() - self._began, _SHORTEST_S)
        keys = dict.fromkeys(self._key(site) for site in sites)
        return tuple(
            WholeLoop(file=file, line=line, why=error.why, fix=error.fix, after_s=after_s)
            for file, line in keys
        )

    def _key(self, site: Site) -> tuple[str, int]:
        return ("" if site.file == self._cell_file else site.file, site.line)


def remark(loop: WholeLoop, site: Site) -> str:
    """What the user reads when the loop at ``site`` begins."""
    why = f"{loop.why}, so every rank computes the loop of {site} whole: right, but not faster."
    if loop.fix:
        why += f" {loop.fix}."
    if loop.after_s:
        return f"{why} The cell was started over for it after {loop.after_s:.1f} s."
    return f"{why} So it was found in an earlier run of this cell; change the cell to have it tried again."
