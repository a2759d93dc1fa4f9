"""The states of the random generators: without a seed, a run goes on where the notebook stands."""

from __future__ import annotations

import sys
from typing import Any


def random_state() -> dict[str, Any]:
    """The global states of this process.

    Returns:
        ``{"random": …, "numpy": …, "torch": …}``: the tuple of
        ``random.getstate()``, the dict of numpy's legacy generator, and torch's
        CPU state as an array of bytes; None for what is not imported here.
    """
    numpy_random = sys.modules.get("numpy.random")
    torch = sys.modules.get("torch")
    random = sys.modules.get("random")
    return {
        "random": None if random is None else random.getstate(),
        "numpy": None if numpy_random is None else numpy_random.get_state(legacy=False),
        "torch": None if torch is None else torch.get_rng_state().numpy(),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set the global states to ``state``; what it has None for is left alone."""
    if state.get("random") is not None:
        import random

        random.setstate(state["random"])
    if state.get("numpy") is not None:
        import numpy as np

        np.random.set_state(state["numpy"])
    if state.get("torch") is not None:
        import torch

        torch.set_rng_state(torch.tensor(state["torch"]))
