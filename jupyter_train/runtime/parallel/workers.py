"""Workers of a loader whose batches are split: what they draw belongs to the batch, not to the worker.

So a rank's samples come out alike however many workers there are, and an
attempt that is taken up again in the middle of a pass draws what it would have.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.fetch import _MapDatasetFetcher

_fetch = _MapDatasetFetcher.fetch


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """The indices of one batch, on their way to a worker."""

    index: Any
    seed: int | None  #: None: whatever the worker draws next


def seed_of(*parts: int) -> int:
    """62 bits that are as good as drawn."""
    digest = hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def draw_from(seed: int) -> None:
    """All random numbers of this process come from there."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % (1 << 32))


class WorkerInit:
    """Stands in for a loader's ``worker_init_fn``; called in the worker.

    Args:
        rank: whose worker it is; it draws other numbers than the same worker of
            another rank. None: the same.
    """

    def __init__(self, inner: Callable[[int], None] | None, rank: int | None) -> None:
        self._inner = inner
        self._rank = rank

    def __call__(self, worker: int) -> None:
        if self._rank is not None:
            draw_from((torch.initial_seed() + 1_000_003 * self._rank) % (1 << 62))
        _MapDatasetFetcher.fetch = _unpacked  # type: ignore[method-assign]  # in this process alone
        if self._inner is not None:
            self._inner(worker)


def _unpacked(fetcher: Any, index: Any) -> Any:
    if isinstance(index, Numbered):
        if index.seed is not None:
            draw_from(index.seed)
        index = index.index
    return _fetch(fetcher, index)  # type: ignore[no-untyped-call]
