"""Checkpoints as they are told and asked for: what a rank says of one, and where an attempt takes a run up again.

The files themselves are written and read by :mod:`jupyter_train.runtime.checkpoint`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Below the folder of the run: attempt, number, and the rank where it is not rank 0.
FILE = re.compile(r"checkpoint-(\d+)-(\d+)(\.\d+)?(\.dcp)?(\.pt)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPart:
    """What one rank has written of one checkpoint: the payload of a ``checkpoint`` event.

    A checkpoint is whole once every rank of its attempt has told its part.
    """

    number: int  #: of the checkpoint, from 1, over all attempts of the run; alike on all ranks
    step: int  #: optimizer steps done
    epoch: int | None = None  #: of ``train.epochs``, in which the run goes on; None: it stood outside of it
    batch: int = 0  #: batches of that epoch that are done
    file: str  #: below the folder of the run, on the host of ``worker``
    size_bytes: int
    worker: str  #: Dask address of the worker that has the file
    names: tuple[str, ...] = ()  #: what was kept, as the cell calls it; rank 0's part
    metric: Mapping[str, float] = field(default_factory=dict)  #: that it is ranked by; rank 0's part
    dropped: bool = False  #: its files were removed: newer or better ones are there

    @property
    def attempt(self) -> int:
        """The attempt that wrote the file; a later one may drop it.

        Raises:
            ValueError: the file has no name of a checkpoint.
        """
        named = FILE.fullmatch(self.file)
        if named is None:
            raise ValueError(f"not a file of a checkpoint: {self.file!r}")
        return int(named[1])

    def to_payload(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def checkpoint_part(payload: Mapping[str, Any]) -> CheckpointPart:
    """The part that ``payload`` tells of.

    Raises:
        ValueError: it is not as documented.
    """
    try:
        epoch = payload.get("epoch")
        part = CheckpointPart(
            number=int(payload["number"]),
            step=int(payload["step"]),
            epoch=None if epoch is None else int(epoch),
            batch=int(payload.get("batch") or 0),
            file=str(payload["file"]),
            size_bytes=int(payload.get("size_bytes") or 0),
            worker=str(payload.get("worker") or ""),
            names=tuple(str(name) for name in payload.get("names") or ()),
            metric={str(name): float(value) for name, value in dict(payload.get("metric") or {}).items()},
            dropped=payload.get("dropped") is True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a checkpoint: {error}") from None
    named = FILE.fullmatch(part.file)
    if part.number < 1 or named is None or int(named[2]) != part.number:
        raise ValueError(f"not a checkpoint: number {part.number}, file {part.file!r}")
    return part


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """The checkpoint that an attempt begins from."""

    run_id: str  #: of the run that wrote it
    attempt: int  #: of that run
    number: int
    step: int
    epoch: int | None = None
    batch: int = 0
    files: tuple[str, ...]  #: by the rank that wrote it, below the folder of that run
    workers: tuple[str, ...] = ()  #: Dask addresses of the workers that wrote them, by rank


def resume_point(told: Any) -> ResumePoint | None:
    """The point in ``told``, JSON values; None where there is none.

    Raises:
        ValueError: it is not as documented.
    """
    if told is None or isinstance(told, ResumePoint):
        return told
    try:
        files = tuple(str(file) for file in told["files"])
        epoch = told.get("epoch")
        point = ResumePoint(
            run_id=str(told["run_id"]),
            attempt=int(told["attempt"]),
            number=int(told["number"]),
            step=int(told["step"]),
            epoch=None if epoch is None else int(epoch),
            batch=int(told.get("batch") or 0),
            files=files,
            workers=tuple(str(worker) for worker in told.get("workers") or ()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a point to resume from: {error}") from None
    if not files or not all(FILE.fullmatch(file) for file in files):
        raise ValueError(f"not a point to resume from: files {files}")
    return point


def goes_on(payload: Mapping[str, Any], run_id: str) -> bool:
    """Whether the event of a given up attempt of ``run_id`` says that the next one goes on where it stood.

    Otherwise what the ranks told up to then counts no more.
    """
    told = payload.get("resume")
    return isinstance(told, Mapping) and told.get("run_id") == run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint of which every rank has told its part: a run can be taken up again from here."""

    attempt: int  #: that wrote it
    number: int  #: from 1, over all attempts
    step: int  #: optimizer steps done
    epoch: int | None = None  #: of ``train.epochs``, in which the run goes on; None: it stood outside of it
    batch: int = 0  #: batches of that epoch that are done
    time: float = 0.0  #: unix time at which the last rank had told its part
    files: tuple[str, ...]  #: by rank, below the folder of the run
    workers: tuple[str, ...]  #: by rank: Dask address of the worker that has the file
    size_bytes: int = 0  #: of all files
    names: tuple[str, ...] = ()  #: what was kept, as the cell calls it
    metric: Mapping[str, float] = field(default_factory=dict)  #: that it is ranked by

    @property
    def says_where(self) -> bool:
        """An attempt can go on from it: outside of ``train.epochs`` nothing says where the cell stood."""
        return self.epoch is not None

    def resume_point(self, run_id: str) -> ResumePoint:
        """This checkpoint, which run ``run_id`` wrote, as the point from which an attempt begins."""
        return ResumePoint(
            run_id=run_id,
            attempt=self.attempt,
            number=self.number,
            step=self.step,
            epoch=self.epoch,
            batch=self.batch,
            files=self.files,
            workers=self.workers,
        )


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the ranks of a run have told of its checkpoints so far. Pure: adding a part gives another."""

    parts: Mapping[tuple[int, int], Mapping[int, CheckpointPart]] = field(default_factory=dict)
    """By attempt and number, and then by rank."""
    whole: tuple[Checkpoint, ...] = ()  #: can be resumed from; oldest first

    def with_part(
        self, part: CheckpointPart, *, attempt: int, rank: int, ranks: int, time: float = 0.0
    ) -> Gathered:
        """This and what ``rank`` of ``attempt`` told, where ``ranks`` make a checkpoint whole.

        An attempt writes checkpoints of its own only, but it also drops those
        that earlier ones wrote.
        """
        key = part.attempt, part.number
        if not 0 <= rank < ranks or (part.attempt != attempt and not part.dropped):
            return self
        told = {**self.parts.get(key, {}), rank: part}
        parts = {**self.parts, key: told}
        whole = tuple(one for one in self.whole if (one.attempt, one.number) != key)
        if len(told) == ranks:
            if all(one.dropped for one in told.values()):
                del parts[key]
            elif not any(one.dropped for one in told.values()):
                whole = tuple(
                    sorted((*whole, _joined(told, time)), key=lambda one: (one.attempt, one.number))
                )
        return Gathered(parts, whole)

    def back_to(self, attempt: int, number: int) -> Gathered:
        """This where the run goes on from that checkpoint: what came after it is of no history that counts."""
        whole = tuple(one for one in self.whole if (one.attempt, one.number) <= (attempt, number))
        kept = {(one.attempt, one.number) for one in whole}
        return Gathered({key: told for key, told in self.parts.items() if key in kept}, whole)


def _joined(parts: Mapping[int, CheckpointPart], time: float) -> Checkpoint:
    by_rank = [parts[rank] for rank in range(len(parts))]
    first = by_rank[0]
    return Checkpoint(
        attempt=first.attempt,
        number=first.number,
        step=first.step,
        epoch=first.epoch,
        batch=first.batch,
        time=time,
        files=tuple(part.file for part in by_rank),
        workers=tuple(part.worker for part in by_rank),
        size_bytes=sum(part.size_bytes for part in by_rank),
        names=first.names,
        metric=first.metric,
    )
