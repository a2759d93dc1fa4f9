"""Which sample of the batch each row of a tensor stems from, through operations that reorder rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from jupyter_train.runtime.parallel.aligning import Shape

Rows = tuple[int, ...]

#: take rows out of tensors, or put tensors together, without calculating: their inputs' orders may differ
REORDERING = frozenset(
    {
        "index", "index_select", "select", "slice", "flip", "roll", "cat", "stack", "split", "unsafe_split",
        "split_with_sizes", "unbind", "gather", "take", "masked_select", "nonzero", "take_along_dim",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """The samples in one dimension of a tensor."""

    rows: Rows
    dim: int


def order_after(
    name: str,
    detail: Any,
    ins: Sequence[Order | None],
    shapes: Sequence[Shape],
    out: Shape,
    dim: int,
    number: int,
) -> Order | None:
    """The order of an output; None where it is not known.

    Args:
        name: of the operation.
        detail: its own arguments, as `watching` takes them.
        ins: orders of the tensors that it takes, those without samples left out.
        shapes: of the same tensors.
        out: shape of the output.
        dim: the dimension of ``out`` that is samples.
        number: which of several outputs it is.
    """
    if not ins or ins[0] is None:
        return None
    first = ins[0]
    rows: Rows | None = None
    if name in (
        "index",
        "index_select",
        "slice",
        "flip",
        "roll",
        "split",
        "unsafe_split",
        "split_with_sizes",
    ):
        rows = _picked(name, detail, first, len(shapes[0]), out[dim], number)
    elif name == "cat":
        rows = _joined(detail % len(out), ins, first)
    elif name == "stack":
        rows = _alike(ins)
    elif name == "repeat":
        rows = first.rows * (out[dim] // len(first.rows))
    elif out[dim] == len(first.rows):
        rows = _alike(ins)
    elif len(ins) == 1:
        rows = _viewed(first, shapes[0], out, dim)
    return Order(rows, dim) if rows is not None and len(rows) == out[dim] else None


def _picked(name: str, detail: Any, first: Order, ndim: int, size: int, number: int) -> Rows | None:
    rows, dim = first.rows, first.dim
    if name == "index":
        chosen = detail[dim] if dim < len(detail) else None
        if chosen is None:
            return rows
        return (
            None if chosen == "?" or max(chosen, default=0) >= len(rows) else tuple(rows[k] for k in chosen)
        )
    if name == "index_select":
        at, chosen = detail
        if at % ndim != dim:
            return rows
        return None if chosen == "?" else tuple(rows[k] for k in chosen)
    if name == "slice":
        at, start, end, step = detail
        return rows[slice(start, end, step)] if at % ndim == dim else rows
    if name == "flip":
        return rows[::-1] if dim in [one % ndim for one in detail] else rows
    if name == "roll":
        shifts, dims = detail
        by = sum(shift for shift, one in zip(shifts, dims, strict=False) if one % ndim == dim) % len(rows)
        return (rows[-by:] + rows[:-by] if by else rows) if dims else None
    at, sizes = detail
    if at % ndim != dim:
        return rows
    each = [sizes] * (number + 1) if isinstance(sizes, int) else list(sizes)
    start = sum(each[:number])
    return rows[start : start + size]


def _joined(dim: int, ins: Sequence[Order | None], first: Order) -> Rows | None:
    if dim != first.dim:
        return _alike(ins)
    if any(one is None or one.dim != dim for one in ins):
        return None
    return tuple(row for one in ins if one is not None for row in one.rows)


def _alike(ins: Sequence[Order | None]) -> Rows | None:
    first = ins[0]
    return (
        first.rows
        if first is not None and all(one is not None and one.rows == first.rows for one in ins)
        else None
    )


def _viewed(first: Order, shape: Shape, out: Shape, dim: int) -> Rows | None:
    """The samples' dimension joined with those beside it, or taken apart again."""
    rows, size = first.rows, out[dim]
    before, after = prod(shape[: first.dim]), prod(out[:dim])
    if size > len(rows) and size % len(rows) == 0:
        each = size // len(rows)
        if before == after:
            return tuple(row for row in rows for _ in range(each))
        return rows * each if before == after * each else None
    if size < len(rows) and size and len(rows) % size == 0:
        each = len(rows) // size
        if before == after and all(len(set(rows[k * each : (k + 1) * each])) == 1 for k in range(size)):
            return rows[::each]
        if rows == rows[:size] * each:
            return rows[:size]
    return None
