"""``run.checkpoints``: what a run keeps, and what is in it. Any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from jupyter_train import home
from jupyter_train.errors import RunError
from jupyter_train.notebook.bundle import plain
from jupyter_train.record import Checkpoint

if TYPE_CHECKING:
    from jupyter_train.control.client import ControllerClient

Connect = Callable[[], "ControllerClient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCheckpoint:
    """One checkpoint of a run. ``%%train --resume RUN@STEP`` goes on from it."""

    run_id: str
    number: int  #: from 1
    attempt: int  #: that wrote it
    step: int  #: optimizer steps done
    epoch: int | None  #: of ``train.epochs``, in which the run would go on
    batch: int  #: batches of that epoch that are done
    time: float  #: unix time at which it was on the disk
    size_bytes: int  #: of all ranks' files
    names: tuple[str, ...]  #: what the cell gave ``train.checkpoint``
    metric: Mapping[str, float]  #: that it is ranked by
    file: str = field(repr=False)  #: rank 0's, below the folder of the run
    worker: str = field(repr=False)  #: that wrote it
    connect: Connect = field(repr=False, compare=False)

    @property
    def path(self) -> Path:
        """The file of rank 0, fetched from its worker where it is not on this disk.

        ``torch.load(path, weights_only=True)`` reads it without this package.

        Raises:
            RunError: it is not to be had any more.
            ClusterError: nobody answers who has it.
        """
        path = home.run_folder(self.run_id) / self.file
        if path.is_file():
            return path
        try:
            home.private_folder(path.parent)
            self.connect().fetch(self.run_id, self.file, self.worker, path)
        except OSError as error:
            raise RunError(
                f"the checkpoint of step {self.step} of run {self.run_id} cannot be had: {error}"
            ) from error
        return path

    def load(self) -> dict[str, Any]:
        """What is in it, by the names of the cell: of models, optimizers and their like the state dict.

        On the CPU, and executing nothing: ``model.load_state_dict(run.checkpoints[-1].load()["model"])``.

        Raises:
            RunError: it is not to be had any more, or damaged.
            ClusterError: nobody answers who has it.
        """
        from jupyter_train.runtime.checkpoint.reader import contents

        return contents(self.path)

    def __str__(self) -> str:
        where = f"step {self.step}" + (f" (epoch {self.epoch})" if self.epoch is not None else "")
        values = "".join(f", {plain(name, 40)} {value:.4g}" for name, value in self.metric.items())
        when = datetime.fromtimestamp(self.time).strftime("%Y-%m-%d %H:%M:%S")
        return f"{where}, {self.size_bytes / 1e6:.1f} MB, {when}{values}"


class Checkpoints(Sequence[KeptCheckpoint]):
    """The checkpoints of a run, oldest first; a display of it says a line for each."""

    def __init__(self, kept: Sequence[KeptCheckpoint]) -> None:
        self._kept = tuple(kept)

    @overload
    def __getitem__(self, index: int) -> KeptCheckpoint: ...
    @overload
    def __getitem__(self, index: slice) -> Checkpoints: ...
    def __getitem__(self, index: int | slice) -> KeptCheckpoint | Checkpoints:
        return Checkpoints(self._kept[index]) if isinstance(index, slice) else self._kept[index]

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[KeptCheckpoint]:
        return iter(self._kept)

    def __repr__(self) -> str:
        return "\n".join(map(str, self._kept)) or "no checkpoints"


def checkpoints_of(run_id: str, kept: Sequence[Checkpoint], connect: Connect) -> Checkpoints:
    """The checkpoints ``kept`` of a run, in the user's hands."""
    return Checkpoints(
        [
            KeptCheckpoint(
                run_id=run_id,
                number=one.number,
                attempt=one.attempt,
                step=one.step,
                epoch=one.epoch,
                batch=one.batch,
                time=one.time,
                size_bytes=one.size_bytes,
                names=one.names,
                metric=dict(one.metric),
                file=one.files[0],
                worker=one.workers[0],
                connect=connect,
            )
            for one in kept
        ]
    )
