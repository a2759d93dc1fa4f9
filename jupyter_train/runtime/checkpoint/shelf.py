"""The checkpoints of a run that lie in its folder on this host: which there are, and which may go.

Rank 0 decides. Another rank sees what rank 0 has dropped, or left out because its disk was
slow, by the file that is not there; where rank 0's files are on another host it keeps its own,
which are small, up to :data:`MOST_UNSEEN`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from jupyter_train.errors import CheckpointUnreadable
from jupyter_train.record.checkpoint import CheckpointPart
from jupyter_train.runtime.checkpoint.files import CheckpointFile, checkpoint_files
from jupyter_train.runtime.checkpoint.retention import OnDisk, to_drop

MOST_UNSEEN = 256

Key = tuple[int, int]  #: attempt, number


class Shelf:
    """What one rank has written. Used by the thread that writes.

    Args:
        folder: of the run.
        read_metric: the values that a file's checkpoint is ranked by.
    """

    def __init__(
        self,
        folder: Path,
        *,
        attempt: int,
        rank: int,
        world_size: int,
        read_metric: Callable[[Path], Mapping[str, float]],
    ) -> None:
        self._folder = folder
        self._attempt = attempt
        self._rank = rank
        self._world_size = world_size
        self._read_metric = read_metric
        self._metrics: dict[Key, Mapping[str, float]] = {}
        self._parts: dict[Key, CheckpointPart] = {}
        self._first: int | None = None  #: number of the first one of this attempt

    def add(self, part: CheckpointPart) -> None:
        """This rank's part is on the disk."""
        if self._first is None:
            self._first = part.number
            # What attempts that were killed had begun to write, and nobody has taken away.
            for file in checkpoint_files(self._folder):
                if file.half and file.attempt < self._attempt and self._rank in (0, file.rank):
                    remove(self._folder / file.name)
        self._parts[self._attempt, part.number] = part
        self._metrics[self._attempt, part.number] = part.metric

    def tidy(self, *, keep_last: int, best: str | None) -> list[CheckpointPart]:
        """Remove what is not needed any more; the parts of it that are to be told, as dropped."""
        files = checkpoint_files(self._folder)
        if self._rank:
            keys = self._without_first(files)
        else:
            keys = self._not_needed(files, keep_last=keep_last, best=best)
        dropped: list[CheckpointPart] = []
        for key in keys:
            mine = CheckpointFile(attempt=key[0], number=key[1], rank=self._rank)
            gone = [file for file in files if (file.attempt, file.number) == key and self._may_remove(file)]
            for file in gone:
                remove(self._folder / file.name)
            part = self._parts.pop(key, None)
            self._metrics.pop(key, None)
            file = next((file for file in gone if file.rank == self._rank), mine)
            part = part or CheckpointPart(number=key[1], step=0, file=file.name, size_bytes=0, worker="")
            dropped.append(replace(part, dropped=True))
        return dropped

    def _may_remove(self, file: CheckpointFile) -> bool:
        """Each rank its own; those of earlier attempts have nobody else any more."""
        return not file.half and (file.rank == self._rank or file.attempt < self._attempt)

    def _without_first(self, files: list[CheckpointFile]) -> list[Key]:
        """For a rank other than 0: its parts of checkpoints that rank 0 does not have any more, or never wrote."""
        leading = {
            file.number
            for file in files
            if file.rank == 0 and file.attempt == self._attempt and not file.half and not file.sharded
        }
        if not leading:
            return sorted(self._parts)[:-MOST_UNSEEN]
        newest = max(leading)
        return [key for key in sorted(self._parts) if key[1] < newest and key[1] not in leading]

    def _not_needed(self, files: list[CheckpointFile], *, keep_last: int, best: str | None) -> list[Key]:
        present: dict[Key, set[int]] = {}
        for file in files:
            if not file.half and file.attempt <= self._attempt:
                ranks = present.setdefault((file.attempt, file.number), set())
                if not file.sharded:
                    ranks.add(file.rank)
        seen = set().union(*present.values()) if present else set()
        first = self._first or 0
        # What an earlier attempt wrote beyond the point from which this one goes on was given up with it.
        given_up = [
            key
            for key, ranks in present.items()
            if key[0] < self._attempt and (key[1] >= first or 0 not in ranks)
        ]
        there = [
            OnDisk(
                attempt=key[0],
                number=key[1],
                whole=seen <= ranks,
                metric=self._metric(key) if best is not None else {},
            )
            for key, ranks in sorted(present.items())
            if 0 in ranks and key not in given_up
        ]
        if len(seen) < self._world_size and there:
            # Other hosts' files cannot be seen from here: the newest may not be whole yet.
            there[-1] = replace(there[-1], whole=False)
        return given_up + [
            (one.attempt, one.number) for one in to_drop(there, keep_last=keep_last, best=best)
        ]

    def _metric(self, key: Key) -> Mapping[str, float]:
        if key not in self._metrics:
            path = self._folder / CheckpointFile(attempt=key[0], number=key[1]).name
            try:
                self._metrics[key] = self._read_metric(path)
            except (CheckpointUnreadable, OSError):
                self._metrics[key] = {}  # damaged, or sharded: it is never the best one
        return self._metrics[key]


def remove_halves(folder: Path, *, attempt: int, rank: int) -> None:
    """Take away what a rank had begun to write when it was killed. For its agent, once the process is gone."""
    for file in checkpoint_files(folder):
        if file.half and (file.attempt, file.rank) == (attempt, rank):
            remove(folder / file.name)


def remove(path: Path) -> None:
    """The file or folder is not there any more, as far as that can be had."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink()
    except OSError:
        pass  # gone already, or on a disk that has become read-only
