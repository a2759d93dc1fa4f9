"""The random states of a process: of torch, numpy and ``random``, and of the rank's GPU."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def read(device: torch.device | None) -> dict[str, Any]:
    """As plain values."""
    return {
        "torch": torch.default_generator.get_state(),
        "numpy": np.random.get_state(legacy=False),
        "python": random.getstate(),
        "cuda": torch.cuda.get_rng_state(device) if device is not None and _is_cuda(device) else None,
    }


def write(states: Mapping[str, Any], device: torch.device | None) -> None:
    """Go on from what :func:`read` gave; of a run on another kind of device the host's states alone."""
    torch.default_generator.set_state(states["torch"])
    np.random.set_state(states["numpy"])
    random.setstate(python_state(states["python"]))
    if device is not None and _is_cuda(device) and states.get("cuda") is not None:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def python_state(state: Any) -> Any:
    """A state of ``random``, whose numbers may have come back as a list."""
    version, numbers, gauss = state
    return version, tuple(numbers), gauss


def _is_cuda(device: torch.device | None) -> bool:
    return device is not None and device.type == "cuda"
