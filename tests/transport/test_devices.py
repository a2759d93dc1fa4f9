"""What says where to compute says the rank's own device. ``meta`` stands for a GPU, where no tensor can move to."""

from __future__ import annotations

import argparse
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from jupyter_train.transport import capture as capturing
from jupyter_train.transport import devices
from jupyter_train.transport.capture import capture
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.devices import is_device_name, map_devices, mapped
from jupyter_train.transport.load import Loaded, load_capture


@pytest.mark.parametrize(
    ("device", "own", "cpu_was_chosen", "expected"),
    [
        ("cuda:0", "cuda:1", True, "cuda:1"),
        ("cuda", "cuda:1", True, None),  # the current one is the rank's
        ("cuda:1", "cuda:1", True, None),
        ("cuda:0", "cpu", True, "cpu"),
        ("cuda", "cpu", True, "cpu"),
        ("mps", "cuda:0", True, "cuda:0"),
        ("cpu", "cuda:0", False, "cuda:0"),  # worked out where there is nothing else
        ("cpu", "cuda:0", True, None),  # chosen
        ("cpu", "cpu", False, None),
        ("meta", "cuda:0", False, None),
        ("left", "cuda:0", False, None),
    ],
)
def test_a_device_of_the_notebook_on_a_rank(
    device: str, own: str, cpu_was_chosen: bool, expected: str | None
) -> None:
    assert mapped(device, own, cpu_was_chosen=cpu_was_chosen) == expected


def test_names_that_say_where_to_compute() -> None:
    assert all(is_device_name(name) for name in ("device", "DEVICE", "dev", "my_device", "device_name"))
    assert not any(
        is_device_name(name) for name in ("cpu", "cpu_device", "host_device", "devices", "x", "devil")
    )


def loaded(
    before: str, cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, own: str, accelerator: bool
) -> tuple[dict[str, Any], Loaded]:
    monkeypatch.setattr(capturing, "has_accelerator", lambda: accelerator)
    here, there = (types.ModuleType("__main__").__dict__ for _ in range(2))
    exec(before, here)
    content = ContentStore(tmp_path / "content")
    captured = capture(cell, here, content=content)
    return there, load_capture(captured.refs, content, there, device=own)


def test_devices_of_a_laptop_are_the_gpu_of_the_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[torch.Tensor] = []
    monkeypatch.setattr(devices, "move", lambda tensor, device: moved.append(tensor))
    there, told = loaded(
        "import torch, argparse\ndevice = torch.device('cuda' if torch.cuda.is_available() else 'cpu')\n"
        "dev = 'cpu'\ncpu = torch.device('cpu')\ncfg = {'device': 'cpu', 'lr': 1}\n"
        "args = argparse.Namespace(device='cpu', n=2)\n"
        "class Trainer:\n  def __init__(self): self.device = torch.device('cpu')\nt = Trainer()\n"
        "model = torch.nn.BatchNorm1d(2)\nopt = torch.optim.Adam(model.parameters())\n"
        "model(torch.ones(3, 2)).sum().backward()\nopt.step()\nx = torch.ones(2)",
        "device, dev, cpu, cfg, args, t, model, opt, x",
        tmp_path,
        monkeypatch,
        own="meta",
        accelerator=False,
    )

    meta = torch.device("meta")
    assert (there["device"], there["dev"], there["cpu"]) == (meta, "meta", torch.device("cpu"))
    assert (there["cfg"], there["args"]) == (
        {"device": "meta", "lr": 1},
        argparse.Namespace(device="meta", n=2),
    )
    assert there["t"].device == meta
    model, state = there["model"], there["opt"].state
    averages = [state[weight][key] for weight in model.parameters() for key in ("exp_avg", "exp_avg_sq")]
    # Data goes where the cell sends it; "step" stays where torch keeps it.
    assert {id(t) for t in moved} == {id(t) for t in (*model.parameters(), *model.buffers(), *averages)}
    assert told.remarks == ("the notebook's devices are the ranks' own here: 'cpu' is 'meta'",)


def test_devices_of_a_notebook_with_a_gpu_are_the_cpu_of_the_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, told = loaded(
        "import torch\ndevice = torch.device('cuda:1')\nholder = [torch.device('cuda')]\nname = 'cuda'\n"
        "def f(d=torch.device('cuda:0')): return d",
        "device, holder, name, f",
        tmp_path,
        monkeypatch,
        own="cpu",
        accelerator=True,
    )

    cpu = torch.device("cpu")
    assert (there["device"], there["holder"], there["f"]()) == (cpu, [cpu], cpu)
    assert there["name"] == "cuda"  # a text with another name may be anything
    assert len(told.remarks) == 1


def test_where_nothing_is_different_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, told = loaded("device = 'cpu'", "device", tmp_path, monkeypatch, own="cpu", accelerator=False)

    assert there["device"] == "cpu"
    assert told.remarks == ()


def test_a_cpu_that_was_chosen_stays() -> None:
    names = {"device": torch.device("cpu")}

    assert map_devices(names, ["device"], [], "cuda:0", cpu_was_chosen=True) == {}
    assert names["device"] == torch.device("cpu")


def test_a_tensor_that_moves_is_the_same_object_with_its_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.sum().backward()

    devices.move(weight, "cpu")

    assert weight.is_leaf
    assert weight.grad is not None
    assert weight.grad.tolist() == [1, 1]
