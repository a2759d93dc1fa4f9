"""The states of the random generators: without a seed, a run goes on where the notebook stands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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


def moved_on(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The states of ``now`` that differ from ``before``; of generators that ``before`` has."""
    return {
        name: now[name]
        for name, state in before.items()
        if state is not None and now.get(name) is not None and not _same(now[name], state)
    }


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one.tobytes() == other.tobytes() if hasattr(one, "tobytes") else bool(one == other)


def restore_random_state(state: Mapping[str, Any]) -> None:
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
