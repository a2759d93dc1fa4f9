"""How a global batch is cut into the ranks' shares. Pure."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Share:
    """This rank's part of one global batch."""

    rank: int
    sizes: tuple[int, ...]  #: samples of each rank; 0: it computes one sample that counts nothing
    total: int  #: samples of the global batch
    digest: int  #: 31 bits of its indices; 0 where they are not whole numbers

    @property
    def mine(self) -> int:
        """Samples of this rank."""
        return self.sizes[self.rank]

    @property
    def is_empty(self) -> bool:
        """This rank has none."""
        return self.sizes[self.rank] == 0

    @property
    def is_forced(self) -> bool:
        """It was cut unevenly though it could have been even."""
        return self.sizes != sizes(self.total, len(self.sizes))

    @property
    def is_even(self) -> bool:
        """All ranks have the same number."""
        return self.total == self.sizes[0] * len(self.sizes)


def sizes(total: int, ranks: int, *, uneven: bool = False) -> tuple[int, ...]:
    """Samples of each rank; they differ by one at most.

    ``uneven`` moves one sample from the last rank to the first where all would
    have the same number: so the batch's dimension can be told from others when
    a loss is seen for the first time. Weights make up for it exactly.
    """
    each, rest = divmod(total, ranks)
    out = [each + (1 if rank < rest else 0) for rank in range(ranks)]
    if uneven and rest == 0 and each > 1:
        out[0] += 1
        out[-1] -= 1
    return tuple(out)


def cut(batch: Sequence[Any], *, rank: int, ranks: int, uneven: bool = False) -> tuple[list[Any], Share]:
    """This rank's indices of ``batch`` and what the others have; one stand-in index where its share is empty."""
    parts = sizes(len(batch), ranks, uneven=uneven)
    start = sum(parts[:rank])
    share = Share(rank, parts, len(batch), digest(batch))
    part = list(batch[start : start + parts[rank]])
    return part or list(batch[:1]), share


def digest(batch: Sequence[Any]) -> int:
    """31 bits of the indices in ``batch``, the same on every rank and host; 0 where they are not whole numbers."""
    try:
        return zlib.crc32(array("q", batch).tobytes()) & 0x7FFFFFFF
    except (TypeError, OverflowError):
        return 0
