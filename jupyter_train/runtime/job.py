"""What a rank is told at its birth."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jupyter_train.home import run_folder
from jupyter_train.record import RunSpec
from jupyter_train.runtime import processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowing:
    """What a shadow is told besides: see `jupyter_train.runtime.proof`."""

    first: int  #: number of the first backward to compare
    ranks: int  #: of the run that it is the shadow of
    recording: str  #: file in which rank 0 leaves what it recorded
    began: float  #: unix time at which rank 0 began the cell
    scratch: str  #: folder for what the cell writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One rank of one attempt, as its agent hands it over: through memory, since it holds environment values."""

    spec: Mapping[str, Any]
    attempt: int
    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    master_host: str
    master_port: int
    home: str  #: folder of the agent's `jupyter_train.home`
    worker: str  #: address of the Dask worker
    cores: int  #: that this host lets us use
    device_index: int  #: which of the visible GPUs is this rank's
    unset: tuple[str, ...] = ()  #: environment variables that only Dask's Nanny had set
    shadow: Shadowing | None = None  #: it is no rank, but runs the cell alone to compare

    @property
    def run_spec(self) -> RunSpec:
        """The run's spec."""
        return RunSpec.from_dict(self.spec)

    @property
    def folder(self) -> Path:
        """The run's folder on this host."""
        return run_folder(self.spec["run_id"], Path(self.home))

    @property
    def marks(self) -> dict[str, str]:
        """What every process of this rank carries in its environment."""
        if self.shadow is not None:  # not rank 0's, at whose end what carries them is killed
            return shadow_marks(self.spec["run_id"], self.attempt)
        return rank_marks(self.spec["run_id"], self.attempt, self.rank)

    def to_file(self) -> int:
        """A descriptor of a file in memory that holds this job, at its start. The caller closes it."""
        data = json.dumps(asdict(self)).encode()
        fd = os.memfd_create("jupyter-train-job")
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @classmethod
    def from_file(cls, fd: int) -> Job:
        """The job in the file ``fd``, which is closed."""
        with os.fdopen(fd, "rb") as file:
            data = json.loads(file.read())
        shadow = Shadowing(**data["shadow"]) if data["shadow"] is not None else None
        return cls(**{**data, "unset": tuple(data["unset"]), "shadow": shadow})


def rank_marks(run_id: str, attempt: int, rank: int) -> dict[str, str]:
    """Environment variables by which the processes of a rank are found again."""
    return {
        processes.RUN_MARK: run_id,
        processes.ATTEMPT_MARK: str(attempt),
        processes.RANK_MARK: str(rank),
    }


def shadow_marks(run_id: str, attempt: int) -> dict[str, str]:
    """Environment variables by which a shadow and its children are found again."""
    return {processes.RUN_MARK: run_id, processes.ATTEMPT_MARK: str(attempt), processes.SHADOW_MARK: "1"}
