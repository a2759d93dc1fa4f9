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
from jupyter_train.runtime.checkpoint.freezing import CannotKeep
from jupyter_train.runtime.checkpoint.keeping import Keeping
from jupyter_train.runtime.checkpoint.loading import CannotRestore
from jupyter_train.runtime.checkpoint.reader import Saved, load_all, plain_value, read_point
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


def test_what_was_one_object_is_one_object_again(written: Written) -> None:
    inner = [1, 2]
    saved = written.saved(first=[inner, inner], second={"same": inner}).shared
    loaded = load_all({}, saved)
    assert loaded["first"][0] is loaded["first"][1] is loaded["second"]["same"]


def test_what_was_two_objects_is_not_made_one_by_where_it_is_loaded(written: Written) -> None:
    saved = written.saved(value=[torch.tensor([1.0]), torch.tensor([2.0])]).shared
    zero = torch.zeros(1)
    assert [one.item() for one in load_all({"value": [zero, zero]}, saved)["value"]] == [1.0, 2.0]


def test_a_tensor_that_shared_the_memory_of_a_weight_shares_it_again(written: Written) -> None:
    model = torch.nn.Linear(4, 3)
    saved = written.saved(model=model, row=model.weight.detach()[1]).shared
    other = torch.nn.Linear(4, 3)
    row = load_all({"model": other, "row": torch.zeros(4)}, saved)["row"]
    assert torch.equal(row, model.weight.detach()[1])
    with torch.no_grad():
        other.weight[1] += 1
    assert torch.equal(row, other.weight[1])


def test_a_copy_that_was_no_copy_yet_before_the_loop_leaves_the_weights_alone(written: Written) -> None:
    model = torch.nn.Linear(4, 3)
    best = [one.detach().clone() for one in model.parameters()]
    with torch.no_grad():
        model.weight.fill_(7)
    saved = written.saved(best=best, model=model).shared
    other = torch.nn.Linear(4, 3)
    loaded = load_all({"model": other, "best": [one.data for one in other.parameters()]}, saved)
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(loaded["best"][0], best[0])


def test_gradients_that_add_up_and_what_is_frozen_are_kept(written: Written) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout())
    model[0].bias.requires_grad_(False)
    model.eval()
    model(torch.ones(4)).sum().backward()
    other = written.again(model, torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout()))
    assert torch.equal(other[0].weight.grad, model[0].weight.grad)
    assert not other[0].bias.requires_grad
    assert not any(one.training for one in other.modules())


def test_the_state_of_an_optimizer_keeps_its_own_type(written: Written) -> None:
    def made() -> torch.optim.Optimizer:
        return torch.optim.Adam([torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))])

    optimizer = made()
    (weight,) = optimizer.param_groups[0]["params"]
    weight.sum().backward()
    optimizer.step()
    optimizer.state[weight]["exp_avg"] = torch.full((3,), 1 / 3, dtype=torch.float64)
    (kept,) = written.again(optimizer, made()).state.values()
    assert torch.equal(kept["exp_avg"], torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize(
    "value",
    [
        {"a": (1, 2.5, None, True, "ä", b"\x00"), 3: {4, 5}, (1, 2): frozenset({6})},
        {"\0kind": "mine"},
        collections.OrderedDict(b=1, a=2),
        collections.Counter("abracadabra"),
        collections.deque([1, (2, 3)], maxlen=4),
        [range(3), slice(1, None), complex(1, 2), 2**90, float("inf"), bytearray(b"x")],
        [np.float32(1.5), np.int64(3), np.datetime64("2026-11-23")],
        torch.Size([1, 2]),
        [torch.float16, torch.device("cpu")],
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_values_come_back_as_they_were(written: Written, value: Any) -> None:
    found = written.again(value)
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, list):
        assert [type(one) for one in found] == [type(one) for one in value]


def test_arrays_of_every_kind_come_back_as_they_were(written: Written) -> None:
    record = np.array([(1, 2.0)], dtype=[("a", "i2"), ("b", ">f8")])
    arrays = [np.arange(6)[::2], np.zeros((0, 3)), np.array(5), np.array(["ab", "c"]), record, np.eye(3).T]
    for one, other in zip(arrays, written.again(arrays), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert (one == other).all()


def test_tensors_of_every_layout_come_back_as_they_were(written: Written) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = [
        base.t(), base[1:3, ::2], base.expand(2, 4, 6), torch.empty(0, 3), torch.tensor(True), base.to(torch.bfloat16),
        torch.complex(base, base).conj(),
    ]  # fmt: skip
    for one, other in zip(tensors, written.again(tensors), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.resolve_conj(), other)


def test_a_small_part_of_a_large_tensor_does_not_drag_all_of_it_along(written: Written) -> None:
    large = torch.zeros(10_000_000)
    written.saved(value=large[5_000_000:5_000_010])
    assert written.told[-1]["size_bytes"] < 10_000


def test_what_cannot_be_kept_is_named_and_left_out(written: Written) -> None:
    saved = written.saved(good=1, bad={"file": [object()]})
    assert list(saved.shared) == ["good"]
    (remark,) = written.remarks
    assert remark == f"checkpoints leave out bad: {saved.left_out['bad']}"
    assert "bad['file'][0] is of the type object" in remark


def test_what_the_cell_gave_and_cannot_be_kept_is_an_error(written: Written) -> None:
    with pytest.raises(CannotKeep, match=r"bad\[0\] is of the type object"):
        written.saved(bad=[object()], names=("bad",))


def test_a_model_of_another_shape_is_named(written: Written) -> None:
    with pytest.raises(
        CannotRestore, match=r"(?s)the checkpoint's value does not fit .*size mismatch for weight"
    ):
        written.again(torch.nn.Linear(3, 2), torch.nn.Linear(4, 2))
    with pytest.raises(
        CannotRestore,
        match=r"value was of the type torch\.nn\.modules\.linear\.Linear .* is of the type int now",
    ):
        written.again(torch.nn.Linear(3, 2), 5)


def test_a_checkpoint_can_be_loaded_twice(written: Written) -> None:
    saved = written.saved(value=[[1.0], torch.ones(2)]).shared
    first = load_all({}, saved)["value"]
    first[0].append(2.0)
    first[1].add_(1)
    again = plain_value(saved["value"])
    assert again[0] == [1.0]
    assert again[1].tolist() == [1.0, 1.0]


def test_a_schedule_by_a_function_goes_on(written: Written) -> None:
    def made() -> Any:
        return torch.optim.lr_scheduler.LambdaLR(
            torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), lambda epoch: 0.5**epoch
        )

    schedule = made()
    for _ in range(3):
        schedule.optimizer.step()
        schedule.step()
    other = written.again(schedule, made())
    assert other.last_epoch == 3
    other.optimizer.step()
    other.step()
    assert other.get_last_lr() == [0.5**4]
