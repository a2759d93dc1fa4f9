"""What the files of checkpoints are called, below the folder of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FILE = re.compile(r"checkpoint-(\d+)-(\d+)(?:\.(\d+))?(\.pt|\.dcp)(\.part)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFile:
    """One file of a checkpoint, or the folder of a sharded one."""

    attempt: int
    number: int
    rank: int = 0
    sharded: bool = False  #: a folder that all ranks write into
    half: bool = False  #: it was still being written

    @property
    def name(self) -> str:
        """Below the folder of the run."""
        rank = f".{self.rank}" if self.rank else ""
        return f"checkpoint-{self.attempt}-{self.number}{rank}{'.dcp' if self.sharded else '.pt'}" + (
            ".part" if self.half else ""
        )


def checkpoint_file(name: str) -> CheckpointFile | None:
    """What ``name`` is the name of; None where it is no file of a checkpoint."""
    found = _FILE.fullmatch(name)
    if found is None:
        return None
    return CheckpointFile(
        attempt=int(found[1]),
        number=int(found[2]),
        rank=int(found[3] or 0),
        sharded=found[4] == ".dcp",
        half=bool(found[5]),
    )


def checkpoint_files(folder: Path) -> list[CheckpointFile]:
    """All that lie in a run's folder, oldest number first; none where it cannot be read."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    found = [file for name in names if (file := checkpoint_file(name)) is not None]
    return sorted(found, key=lambda file: (file.number, file.attempt, file.rank))
