"""What the journals of a folder say of their runs, read again only where a file has changed.

Every start of a cluster makes a journal, and who follows a run from its
journal looks several times a second.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from jupyter_train.store.liveness import ControllerMark
from jupyter_train.store.reader import JournalReader
from jupyter_train.store.summary import RunSummary

#: Two changes so close together may bear the same time: what was read then is read again.
SAME_TIME_NS = 100_000_000

_Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """One journal as of one moment."""

    mark: ControllerMark | None
    summaries: tuple[RunSummary, ...]


class Glances:
    """Of any number of journals; any thread."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[_Signature, Glance]] = {}

    def at(self, path: Path) -> Glance:
        """The journal at ``path`` as it is now.

        Raises:
            StoreTooNew, StoreDamaged: it cannot be read.
        """
        now_ns = time.time_ns()
        before = _signature(path)
        known = self._seen.get(path)
        if known is not None and known[0] == before:
            return known[1]
        mark, summaries = JournalReader(path).mark_and_summaries()
        glance = Glance(mark=mark, summaries=tuple(summaries))
        # A change after the signature was taken shows in the next one, unless it came in the same instant.
        if before and max(changed_ns for changed_ns, _, _ in before) < now_ns - SAME_TIME_NS:
            self._seen[path] = (before, glance)
        else:
            self._seen.pop(path, None)
        return glance


def _signature(path: Path) -> _Signature:
    """Changes with every commit: in WAL mode the file beside the journal, else the journal itself."""
    found = []
    for file in (path, path.with_name(path.name + "-wal")):
        try:
            stat = os.stat(file)
        except OSError:
            stat = None
        # A reader makes the file beside the journal where it is missing, and leaves it empty.
        if stat is None or not stat.st_size:
            found.append((0, -1, -1))
        else:
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)
