"""A snapshot with live values → what is written: copies of the tensors, everything else frozen. Main thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_train.runtime.checkpoint.files import CheckpointFile
from jupyter_train.runtime.checkpoint.freezing import CannotKeep, Freezer
from jupyter_train.runtime.checkpoint.sharded import Nothing, Shards, has_process_group
from jupyter_train.runtime.checkpoint.staging import Copied, Staging, StagingPool
from jupyter_train.runtime.checkpoint.state import Snapshot
from jupyter_train.runtime.checkpoint.writer import FORMAT, VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A snapshot whose values are live no more."""

    snapshot: Snapshot
    content: dict[str, Any]  #: of the file
    copied: Copied  #: the memory of its tensors
    shards: Shards  #: tensors of which this rank has a part; they are not in the file


class Copier:
    """Copies the snapshots of one rank of one attempt."""

    def __init__(self, *, attempt: int, rank: int, world_size: int) -> None:
        self._attempt = attempt
        self._rank = rank
        self._world_size = world_size
        self._pool = StagingPool()

    def copy(self, snapshot: Snapshot) -> Copy:
        """What ``snapshot`` holds now.

        Raises:
            CannotKeep: the cell gave a value that no checkpoint can hold.
            MemoryError: there is no room for a copy.
        """
        staging = Staging(self._pool)
        shards = Shards(staging)
        freezer = Freezer(staging, shards=shards)
        left_out: dict[str, str] = {}

        def frozen(values: Mapping[str, Any], freezer: Freezer = freezer) -> dict[str, Any]:
            states = {}
            for label, value in values.items():
                try:
                    states[label] = freezer.freeze(value, label)
                except CannotKeep as error:
                    if label in snapshot.names:
                        raise
                    left_out[label] = str(error)
            return states

        shared: dict[str, Any] = {}
        if self._rank == 0:
            shared = frozen(snapshot.shared)
        elif has_process_group():
            # Every rank has parts of it, and a library may ask all ranks at once for its state.
            frozen(snapshot.shared, Freezer(Nothing(), shards=shards))
            left_out.clear()
        content = {
            "format": FORMAT,
            "version": VERSION,
            "number": snapshot.number,
            "attempt": self._attempt,
            "rank": self._rank,
            "world_size": self._world_size,
            "step": snapshot.step,
            "epoch": snapshot.epoch,
            "batch": snapshot.batch,
            "names": list(snapshot.names),
            "metric": {name: float(value) for name, value in snapshot.metric.items()},
            "position": freezer.freeze(dict(snapshot.position), "the position"),
            "shared": shared,
            "own": frozen(snapshot.own),
            "left_out": left_out,
        }
        if shards:
            folder = CheckpointFile(attempt=self._attempt, number=snapshot.number, sharded=True).name
            content["sharded"] = {"folder": folder, "markers": shards.markers}
        try:
            copied = staging.copy()
        except (OSError, RuntimeError) as error:  # of mmap, of CUDA's pinned memory
            raise MemoryError(str(error).partition("\n")[0]) from error
        return Copy(snapshot=snapshot, content=content, copied=copied, shards=shards)
