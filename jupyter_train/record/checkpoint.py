"""Checkpoints as they are told and asked for: what a rank says of one, and where an attempt takes a run up again.

The files themselves are written and read by :mod:`jupyter_train.runtime.checkpoint`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FILE = re.compile(r"checkpoint-\d+-\d+(\.\d+)?(\.dcp)?(\.pt)?")  #: below the folder of the run


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
    if part.number < 1 or not FILE.fullmatch(part.file):
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
