"""Which dimensions of the tensors in a loop are the samples of its batch: those that differ between the ranks as their shares do. Pure."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """What one operation took in and gave, as the ranks tell each other."""

    name: str
    ins: tuple[Shape, ...]
    outs: tuple[Shape, ...]


class Dim(IntEnum):
    """What one dimension of a tensor is."""

    SAME = 0  #: as large on every rank
    RAGGED = 1  #: differs between the ranks by something else than the sizes of their shares
    BATCH = 2  #: samples, or a whole number of rows for each


Kinds = tuple[Dim, ...]


def packed(log: Sequence[Shapes]) -> bytes:
    """A log, small enough to send: most operations of a loop come again and again."""
    numbers: dict[Shapes, int] = {}
    order = [numbers.setdefault(one, len(numbers)) for one in log]
    different = [(one.name, one.ins, one.outs) for one in numbers]
    return zlib.compress(pickle.dumps((different, order)), 1)


def unpacked(data: bytes) -> list[Shapes]:
    """What :func:`packed` was given."""
    different, order = pickle.loads(zlib.decompress(data))
    every = [Shapes(*one) for one in different]
    return [every[number] for number in order]


def aligned(mine: Sequence[Shapes], every: Sequence[Sequence[Shapes]]) -> list[list[Shapes] | None]:
    """For each operation of ``mine`` the same one of ``every`` rank; None where the ranks did different things.

    They are the same from the beginning and from the end; between, as in a loop
    over the samples, nothing is known of those that some rank did not do.
    """
    logs = [[(one.name, len(one.ins)) for one in log] for log in every]
    shortest = min(map(len, logs))
    head = 0
    while head < shortest and all(log[head] == logs[0][head] for log in logs):
        head += 1
    tail = 0
    while tail < shortest - head and all(log[-1 - tail] == logs[0][-1 - tail] for log in logs):
        tail += 1
    out: list[list[Shapes] | None] = []
    for at in range(len(mine)):
        if at < head:
            out.append([log[at] for log in every])
        elif at >= len(mine) - tail:
            out.append([log[at - len(mine)] for log in every])
        else:
            out.append(None)
    return out


def kinds(shapes: Sequence[Shape], shares: Sequence[Sequence[int]]) -> Kinds | None:
    """The dimensions of one tensor, whose ``shapes`` are those of the ranks; None where they have different numbers of them.

    Args:
        shares: samples of the same ranks, for each of the loaders that are read together.
    """
    if len({len(shape) for shape in shapes}) > 1:
        return None
    return tuple(_kind(sizes, shares) for sizes in zip(*shapes, strict=True))


def _kind(sizes: Sequence[int], shares: Sequence[Sequence[int]]) -> Dim:
    if all(size == sizes[0] for size in sizes):
        return Dim.SAME
    for share in shares:
        each = sizes[0] // share[0]
        if each and all(size == each * part for size, part in zip(sizes, share, strict=True)):
            return Dim.BATCH
    return Dim.RAGGED
