"""What was kept of a training loop's objects is there again in new ones, to the bit."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jupyter_train.record.checkpoint import ResumePoint
from jupyter_train.runtime.checkpoint.keeping import Keeping
from jupyter_train.runtime.checkpoint.reader import Saved, load_all, read_point
from jupyter_train.runtime.checkpoint.state import Snapshot

RUN = "20261122-153000-ab12cd"


class Written:
    """Keeps values in a file and gives what was saved of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.remarks: list[str] = []
        self.told: list[Mapping[str, Any]] = []

    def saved(
        self, *, names: tuple[str, ...] = (), meanwhile: Callable[[], None] | None = None, **shared: Any
    ) -> Saved:
        """``shared`` as it is now; ``meanwhile`` is called while the file is being written."""
        keeping = Keeping(
            folder=self.home / "runs" / RUN,
            attempt=1,
            rank=0,
            world_size=1,
            worker="tcp://127.0.0.1:1",
            tell=self.told.append,
            remark=self.remarks.append,
        )
        keeping.keep(Snapshot(number=1, step=0, shared=shared, names=names))
        if meanwhile is not None:
            meanwhile()
        keeping.close(30)
        file = "checkpoint-1-1.pt"
        return read_point(ResumePoint(run_id=RUN, attempt=1, number=1, step=0, files=(file,)), 0, self.home)

    def again(self, value: Any, target: Any = None, **more: Any) -> Any:
        """``value`` out of a file, loaded into ``target``."""
        return load_all({"value": target}, self.saved(value=value, **more).shared)["value"]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def _loop(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Tanh(), torch.nn.Linear(16, 2)
    )
    model[3].register_buffer("scale", torch.rand(3), persistent=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return {
        "model": model,
        "optimizer": optimizer,
        "cycle": torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=100),
        "generator": torch.Generator().manual_seed(seed),
        "python": random.Random(seed),
        "numpy": np.random.default_rng(seed),
        "legacy": np.random.RandomState(seed),
        "best": [p.data for p in model.parameters()],
        "losses": [],
        "recent": collections.deque(maxlen=3),
        "sums": np.zeros((2, 3)),
    }


def _train(loop: dict[str, Any], steps: int) -> None:
    for _ in range(steps):
        x = torch.randn(32, 8, generator=loop["generator"])
        loop["optimizer"].zero_grad()
        loss = loop["model"](x).pow(2).mean()
        loss.backward()
        loop["optimizer"].step()
        loop["cycle"].step()
        loop["losses"].append(loss.item())
        loop["recent"].append((loop["python"].random(), loop["numpy"].random(), loop["legacy"].rand()))
        loop["sums"] += loss.item()
        loop["model"][3].scale *= 1.01


def test_a_loop_goes_on_as_if_it_had_never_stopped(written: Written) -> None:
    undisturbed = _loop(1)
    _train(undisturbed, 5)
    undisturbed["best"] = [p.detach().clone() for p in undisturbed["model"].parameters()]
    saved = written.saved(**undisturbed, meanwhile=lambda: _train(undisturbed, 4))

    again = _loop(2)
    assert load_all(again, saved.shared)["losses"] is again["losses"]
    _train(again, 4)

    for one, other in zip(undisturbed["model"].parameters(), again["model"].parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(undisturbed["best"], again["best"], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(undisturbed["model"][3].scale, again["model"][3].scale)
    assert undisturbed["losses"] == again["losses"]
    assert undisturbed["recent"] == again["recent"]
    assert (undisturbed["sums"] == again["sums"]).all()
