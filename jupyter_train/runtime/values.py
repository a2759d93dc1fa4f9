"""Numbers on their way into a metric: taken at once, read from the device later and elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of a 0-d tensor on its device, made in stream order without waiting for it."""

    tensor: torch.Tensor
    stream: Any  #: the CUDA stream that makes the copy; None elsewhere


def snapshot(value: Any) -> float | Snapshot:
    """``value`` as it is now: a float, or a copy on the device it is on.

    Never waits for a device. The value may be overwritten in place afterwards.

    Raises:
        TypeError: it is not one real number.
    """
    if isinstance(value, (float, int)):
        return float(value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise TypeError(f"a tensor of shape {tuple(value.shape)}; log one number, such as its .mean()")
        if value.is_complex():
            raise TypeError("a complex number; log its .abs() or .real")
        if value.device.type == "cpu":
            return float(value.detach())
        copy = value.detach().clone()
        return Snapshot(copy, torch.cuda.current_stream(copy.device) if copy.is_cuda else None)
    if hasattr(value, "shape") and value.shape:
        raise TypeError(f"an array of shape {tuple(value.shape)}; log one number, such as its .mean()")
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"a {type(value).__name__}; log a number or a tensor with one element")
    return float(value)


def resolve(values: Sequence[float | Snapshot]) -> list[float]:
    """The numbers behind ``values``; waits for the devices. For the recorder's thread.

    One transfer per stream, not one per number.
    """
    numbers: list[float] = [0.0] * len(values)
    on_device: dict[Any, list[int]] = {}
    for index, value in enumerate(values):
        if isinstance(value, Snapshot):
            on_device.setdefault((value.tensor.device, value.stream), []).append(index)
        else:
            numbers[index] = value
    for (device, stream), indices in on_device.items():
        for index, number in zip(indices, _read(device, stream, [values[i] for i in indices]), strict=True):
            numbers[index] = number
    return numbers


def _read(device: torch.device, stream: Any, values: Sequence[Any]) -> list[float]:
    import torch

    try:
        with torch.no_grad(), torch.cuda.stream(stream):  # stream None changes nothing
            tensors = [value.tensor.reshape(()) for value in values]
            if device.type != "mps":  # which has no float64
                tensors = [tensor.double() for tensor in tensors]
            return [float(number) for number in torch.stack(tensors).tolist()]
    except RuntimeError:  # the device is lost; the cell meets the same error and tells
        return [math.nan] * len(values)
