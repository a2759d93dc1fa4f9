"""``run.checkpoints``: what is kept can be read in the notebook, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jupyter_train import home
from jupyter_train.errors import ClusterUnreachable, RunError
from jupyter_train.notebook.checkpoints import checkpoints_of
from jupyter_train.record import Checkpoint
from jupyter_train.record.checkpoint import CheckpointPart, checkpoint_part
from jupyter_train.runtime.checkpoint.keeping import Keeping
from jupyter_train.runtime.checkpoint.state import Snapshot

RUN = "20261122-153000-ab12cd"


class Elsewhere:
    """A controller on whose worker the files lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str]] = []

    def fetch(self, run_id: str, name: str, worker: str, path: Path) -> int:
        self.asked.append((name, worker))
        if not (self.folder / name).exists():
            raise RunError(f"{name} is gone")
        shutil.copy(self.folder / name, path)
        return path.stat().st_size


def written(folder: Path) -> tuple[torch.nn.Module, Checkpoint]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    told: list[Any] = []
    keeping = Keeping(
        folder=folder, attempt=1, rank=0, world_size=1, worker="w0", tell=told.append, remark=pytest.fail
    )
    shared = {"model": model, "0:<module>/optimizer": optimizer, "0:<module>/losses": [1.0, 0.5]}
    keeping.keep(
        Snapshot(number=1, step=20, epoch=1, batch=4, shared=shared, names=("model",), metric={"loss": 0.5})
    )
    keeping.close(30)
    part: CheckpointPart = checkpoint_part(told[1])
    return model, Checkpoint(
        attempt=1, number=1, step=20, epoch=1, batch=4, files=(part.file,), workers=("w0",),
        size_bytes=part.size_bytes, names=part.names, metric=part.metric,
    )  # fmt: skip


def nobody() -> Any:
    raise ClusterUnreachable("the scheduler cannot be reached")


def test_it_is_read_by_the_names_of_the_cell_without_a_cluster() -> None:
    model, kept = written(home.run_folder(RUN))
    (one,) = checkpoints_of(RUN, [kept], nobody)
    assert (one.step, one.epoch, one.batch, one.metric) == (20, 1, 4, {"loss": 0.5})
    loaded = one.load()
    assert list(loaded) == ["model", "optimizer", "losses"]
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(loaded["model"])
    assert torch.equal(other.weight, model.weight)
    torch.optim.Adam(other.parameters()).load_state_dict(loaded["optimizer"])
    assert loaded["losses"] == [1.0, 0.5]


def test_it_is_fetched_once_from_the_worker_that_has_it(tmp_path: Path) -> None:
    model, kept = written(tmp_path)
    control = Elsewhere(tmp_path)
    (one,) = checkpoints_of(RUN, [kept], lambda: control)  # type: ignore[arg-type,return-value]
    assert torch.equal(one.load()["model"]["weight"], model.weight)
    assert one.path.parent == home.run_folder(RUN)
    assert control.asked == [("checkpoint-1-1.pt", "w0")]


def test_a_list_of_them_says_a_line_for_each() -> None:
    _, kept = written(home.run_folder(RUN))
    shown = repr(checkpoints_of(RUN, [kept, kept], nobody)).splitlines()
    assert len(shown) == 2
    assert shown[0].startswith("step 20 (epoch 1), 0.0 MB, ")
    assert shown[0].endswith(", loss 0.5")
    assert repr(checkpoints_of(RUN, [], nobody)) == "no checkpoints"
