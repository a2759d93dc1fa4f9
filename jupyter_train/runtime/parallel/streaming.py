"""Batches that no index tells: every rank reads the whole stream and keeps its part of each batch.

An iterable data set is asked for one sample after another, and for a batch it
is told only how many. So what is told here is an :class:`Order`, which knows
how its batch is to be cut, and the loader's collate function is replaced by a
:class:`Dealer`, which gets the samples right after and cuts them. An order
travels to the loader's workers like any index, so that all ranks cut the same
batches alike, however far ahead their workers are.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import get_worker_info

from jupyter_train.runtime.parallel.rng import Streams
from jupyter_train.runtime.parallel.samples import digest_of, rows_of, slice_rows
from jupyter_train.runtime.parallel.shares import Share, cut, sizes


class _Last(threading.local):
    order: Order | None = None


_last = _Last()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Stands in for the indices of one batch of a stream."""

    total: int  #: samples of the batch, where the stream has as many
    ranks: int  #: among which it is cut; 1: not cut
    rank: int
    uneven: bool
    state: int  #: digest of what the data set holds

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[None]:
        try:
            for _ in range(self.total):
                yield None
        finally:
            # The fetcher has read its last sample, and calls the collate function next. Not sooner: a data set
            # may itself read from a loader like this one.
            _last.order = self


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealt:
    """What a :class:`Dealer` made of one batch."""

    batch: Any
    share: Share | None  #: None: whole
    total: int  #: samples of the global batch

    def pin_memory(self, *device: Any) -> Dealt:
        """As a loader does it with batches of its own kinds."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return replace(self, batch=pin_memory(self.batch, *device))  # type: ignore[no-untyped-call]


class Dealer:
    """Stands in for a loader's collate function. In the rank's main thread, or in the loader's workers.

    What the collate function draws comes from this rank's own random stream:
    shares differ in size, and what the data set draws must not depend on it.
    """

    def __init__(self, inner: Callable[[Any], Any], rank: int, streams: Streams | None = None) -> None:
        self.inner = inner
        self.rank = rank
        self._streams = streams

    def __reduce__(self) -> tuple[Any, ...]:
        return Dealer, (self.inner, self.rank)

    def __call__(self, samples: list[Any]) -> Dealt:
        order, _last.order = _last.order, None
        assert order is not None, "a stream is read by orders"
        if order.ranks == 1:
            return Dealt(batch=self.inner(samples), share=None, total=len(samples))
        part, share = cut(samples, rank=order.rank, ranks=order.ranks, uneven=order.uneven)
        share = replace(share, digest=digest_of((order.state, samples[0], samples[-1])))
        if self._streams is None:
            self._streams = Streams(self.rank, torch.device("cpu"))
        self._streams.use(private=True)
        try:
            return Dealt(batch=self.inner(part), share=share, total=share.total)
        finally:
            if (
                get_worker_info() is not None
            ):  # in the rank itself, who reads the stream goes back where need be
                self._streams.use(private=False)


def cut_ready(
    batch: Any, *, most: int, rank: int, ranks: int, uneven: bool, state: int
) -> tuple[Any, Share] | None:
    """This rank's rows of a batch that the data set made; None where not all of its tensors have the same rows.

    Args:
        most: rows that a batch has, at most.
    """
    total = rows_of(batch)
    if not 0 < total <= most:
        return None
    parts = sizes(total, ranks, uneven=uneven)
    start = sum(parts[:rank])
    share = Share(rank, parts, total, digest_of((state, total)))
    mine = slice(start, start + parts[rank]) if parts[rank] else slice(0, 1)
    return slice_rows(batch, mine), share


def like(given: Any, part: Sequence[Any]) -> Any:
    """The indices ``part`` as the kind of collection that ``given`` is, where a data set may mind."""
    if isinstance(given, torch.Tensor):
        return torch.stack(list(part)) if len(part) else given[:0]
    if type(given) is tuple:
        return tuple(part)
    if type(given).__module__ == "numpy":
        import numpy as np

        return np.asarray(part, dtype=given.dtype)
    return list(part)


def in_order(inner: Any) -> None:
    """Let an iterator with workers hear of the end of a worker's stream in the order of its batches, not when it comes.

    Otherwise which worker makes the next batch depends on timing, and with
    three workers or more ranks may get their last batches in another order.
    """
    if getattr(inner, "_hears_in_order", False):
        return
    receive = type(inner)._get_data
    early: dict[int, Any] = {}
    owner = weakref.ref(inner)  # or it would live until the garbage collector comes, and its workers with it

    def get() -> tuple[Any, Any]:
        iterator = owner()
        assert iterator is not None
        while (wanted := iterator._rcvd_idx) not in early:
            number, data = receive(iterator)
            if not isinstance(
                number, int
            ):  # a worker that persists begins anew; what came before is of the last pass
                early.clear()
                return number, data
            early[number] = data
        return wanted, early.pop(wanted)

    inner._get_data = get
    inner._hears_in_order = True
