"""What a node of torch's graph tells of the operation it stands for. Private attributes: see selftest.py."""

from __future__ import annotations

import math
from typing import Any

import torch


def factor(node: Any) -> torch.Tensor | float | None:
    """The number by which ``node`` multiplies or divides, where it kept it."""
    children = node.next_functions
    for side, name in ((1, "_saved_other"), (0, "_saved_self")):
        value = getattr(node, name, None)
        if isinstance(value, (int, float)):
            return value
        is_number = side >= len(children) or children[side][0] is None
        if isinstance(value, torch.Tensor) and is_number and value.numel() == 1 and not value.requires_grad:
            return value
    return None


def scaled(node: Any) -> list[tuple[Any, float]]:
    """What ``node`` is a multiple of: each node below it on the way through numbers, and by how much.

    For ``(loss / 4).backward()`` the node of ``loss`` and 0.25.
    """
    out = []
    product = 1.0
    while node is not None and node.name() in ("MulBackward0", "DivBackward0"):
        value = factor(node)
        below = [child for child, _ in node.next_functions if child is not None]
        divides = node.name().startswith("Div")
        if value is None or len(below) != 1 or (divides and node.next_functions[0][0] is None):
            break
        number = float(value)
        if not number or not math.isfinite(number):
            break
        product = product / number if divides else product * number
        node = below[0]
        out.append((node, product))
    return out


def is_tensor_like(value: torch.Tensor | float, node: Any) -> bool:
    """``value`` was a tensor in the cell, not a number of Python; in float64 the two look the same."""
    kept = node._input_metadata
    dtype = kept[0].dtype if kept else None
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype == dtype


def shape(node: Any) -> tuple[int, ...]:
    """Shape of what came out of the operation."""
    kept = node._input_metadata
    return tuple(int(size) for size in kept[0].shape) if kept else ()


def dims(node: Any) -> tuple[int, ...]:
    """Shape of what ``node`` reduced."""
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    if sizes is not None:
        return tuple(int(s) for s in sizes)
    children = node.next_functions
    if children and children[0][0] is not None:
        child, output = children[0]
        kept = child._input_metadata
        if output < len(kept):
            return tuple(int(s) for s in kept[output].shape)
    value = getattr(node, "_saved_self", None)
    return tuple(value.shape) if value is not None else ()


def reduced(node: Any) -> int:
    """Number of elements that ``node`` averaged into one."""
    return math.prod(dims(node)) // max(math.prod(shape(node)), 1)


def is_over_first(node: Any) -> bool:
    """``node`` reduces the first dimension, and maybe others."""
    over = getattr(node, "_saved_dim", ())
    kept = over if isinstance(over, tuple) else (over,)
    rank = len(dims(node))
    return rank > 0 and any(_signed(dim) in (0, -rank) for dim in kept)


def _signed(number: int) -> int:
    """A dimension that torch kept as an unsigned number."""
    return number - (1 << 64) if number >= 1 << 63 else number


def plain(name: str) -> str:
    word = name.partition("Backward")[0]
    return {"Sqrt": "a square root", "Log": "a logarithm", "Pow": "a power", "Exp": "an exponential"}.get(
        word, word
    )
