"""What a rank says of the machine that it runs on."""

from __future__ import annotations

import socket

import pytest
import torch

from jupyter_train.record import Event, EventKind, pack_event, unpack_event
from jupyter_train.runtime.machine import cpu_model, machine


def test_it_names_host_processor_device_and_versions() -> None:
    told = machine(torch.device("cpu"), cores=3)
    assert told["hostname"] == socket.gethostname()
    assert told["cpu"] == cpu_model() != ""
    assert (told["cores"], told["device"], told["devices"]) == (3, "cpu", 0)
    assert told["memory_bytes"] > 2**28
    assert told["versions"]["torch"] == str(torch.__version__)


def test_it_can_travel() -> None:
    told = machine(torch.device("cpu"), cores=1)
    event = Event(run_id="r", time=0.0, kind=EventKind.LOG, payload=told)
    assert unpack_event(pack_event(event)).payload == told


def test_a_gpu_is_named_with_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    told = machine(torch.device("cuda", 1), cores=1)
    assert (told["device"], told["device_name"], told["devices"]) == ("cuda:1", "GPU 1", 4)
