"""The notebook's devices on a rank: what says where to compute says the rank's own device.

Tensors that lie on an accelerator go to the rank's device when they are loaded
(``memory``), and so do ``torch.device`` objects that name one. A ``device = "cpu"``
was worked out where there is nothing else: on a rank with a GPU it means the
GPU, for variables, attributes and dictionary entries called so, and then the
modules that the cell reads are there, too. Where the notebook has an
accelerator, "cpu" was chosen, and stays.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from jupyter_train.transport.memory import Regions

_DEVICE_NAME = re.compile(r"(?:.*_)?(?:device|dev)(?:_.*)?", re.IGNORECASE)
_CHOSEN_CPU = re.compile(r"cpu|host", re.IGNORECASE)
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|hip)(?::(\d+))?")


@cache
def has_accelerator() -> bool:
    """Whether this process could compute on anything but a CPU. False where torch is not imported."""
    torch = sys.modules["torch"]
    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())


def is_device_name(name: str) -> bool:
    """Whether a variable called ``name`` says where to compute."""
    return bool(_DEVICE_NAME.fullmatch(name)) and not _CHOSEN_CPU.search(name)


def mapped(device: str, own: str, *, cpu_was_chosen: bool) -> str | None:
    """What ``device`` is on a rank, None where it stays as it is.

    Args:
        device: as the notebook has it: ``cuda:0``.
        own: the rank's.
        cpu_was_chosen: the notebook could compute on something else.
    """
    found = _DEVICE.fullmatch(device)
    if found is None or device == own:
        return None
    kind, index = found.groups()
    own_kind = own.partition(":")[0]
    if kind == "cpu":
        return None if cpu_was_chosen else own
    if kind == own_kind and index is None:
        return None  # the current one, which is the rank's
    return own


def rebuild_device(regions: Regions, device: str) -> Any:
    """A ``torch.device`` of the notebook, in the process that loads it."""
    import torch

    own = regions.device
    changed = mapped(device, own, cpu_was_chosen=True) if own is not None else None
    if changed is not None:
        regions.moved[device] = changed
    return torch.device(changed or device)


def map_devices(
    namespace: dict[str, Any],
    names: Iterable[str],
    objects: Sequence[Any],
    own: str,
    *,
    cpu_was_chosen: bool,
) -> dict[str, str]:
    """Let variables, attributes and entries that say where to compute say ``own``.

    Args:
        namespace: with what was captured.
        names: of what was captured.
        objects: all of it, by number.
        own: the rank's device.
        cpu_was_chosen: the notebook could compute on something else.

    Returns:
        What became what.
    """
    torch = sys.modules["torch"]
    done: dict[str, str] = {}

    def new(value: Any) -> Any:
        if not isinstance(value, str | torch.device):
            return None
        changed = mapped(str(value), own, cpu_was_chosen=cpu_was_chosen)
        if changed is None:
            return None
        done[str(value)] = changed
        return changed if isinstance(value, str) else torch.device(changed)

    holders = [value for value in objects if type(value) is dict]
    holders += [vars(value) for value in objects if _has_settings(value)]
    for holder in holders:
        if (changed := new(holder.get("device"))) is not None:
            holder["device"] = changed
    for name in names:
        if is_device_name(name) and (changed := new(namespace.get(name))) is not None:
            namespace[name] = changed
    if "cpu" in done:
        _move_modules(objects, own)
    return done


def _has_settings(value: Any) -> bool:
    """Whether the attributes of ``value`` are the notebook's own: of its classes, or of a bare namespace."""
    kind = type(value)
    return (
        kind.__module__ == "__main__" or kind is SimpleNamespace or kind.__module__ == "argparse"
    ) and hasattr(value, "__dict__")


def _move_modules(objects: Sequence[Any], own: str) -> None:
    """What ``model.to(device)`` of an earlier cell would have done here; optimizers keep their parameters."""
    torch = sys.modules["torch"]
    for value in objects:
        if isinstance(value, torch.nn.Module):
            tensors = [*value._parameters.values(), *value._buffers.values()]
        elif isinstance(value, torch.optim.Optimizer):
            states = [state for state in value.state.values() if isinstance(state, dict)]
            tensors = [part for state in states for key, part in state.items() if key != "step"]
        else:
            continue
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                move(tensor, own)


def move(tensor: Any, device: str) -> None:
    """Take ``tensor`` to ``device``: the same object, with its gradient. Between a CPU and its accelerators."""
    gradient, tensor.grad = tensor.grad, None
    tensor.data = tensor.data.to(device)
    if gradient is not None:
        tensor.grad = gradient.to(device)


def device_remark(moved: dict[str, str]) -> str:
    """One sentence about what became what; empty where nothing did."""
    if not moved:
        return ""
    pairs = ", ".join(f"{old!r} is {new!r}" for old, new in sorted(moved.items()))
    return f"the notebook's devices are the ranks' own here: {pairs}"
