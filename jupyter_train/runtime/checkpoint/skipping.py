"""Passes over loaders that go on behind the batches that are done, and counters of loops that go on with them."""

from __future__ import annotations

import ctypes
import gc
from types import GeneratorType
from typing import Any

from torch.utils.data import IterableDataset

from jupyter_train.errors import CellError

DEEPEST = 4


def skip(loader: Any, inner: Any, *, where: str) -> None:
    """Let ``inner``, which was made for ``loader``, leave out its next batch.

    Where nothing but indices comes before a batch they are drawn and not looked
    up; else the batch is read and dropped.

    Raises:
        CellError: there is none.
    """
    by_index = (
        not loader.num_workers
        and not isinstance(loader.dataset, IterableDataset)
        and hasattr(inner, "_next_index")
        and hasattr(inner, "_num_yielded")
    )
    try:
        if by_index:
            inner._next_index()
            inner._num_yielded += 1
        else:
            next(inner)
    except StopIteration:
        raise CellError(
            f"{where}: the checkpoint stands behind more batches of this loop than the loader has now"
        ) from None


def advance_counters(iterator: Any, count: int) -> None:
    """Let the loops that read from ``iterator`` through ``enumerate`` or ``zip`` count ``count`` items more.

    They are waiting for its next item: nothing of theirs can be called.
    """
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(iterator, DEEPEST)]
    while waiting:
        one, depth = waiting.pop()
        if id(one) in seen or not depth:
            continue
        seen.add(id(one))
        for holder in gc.get_referrers(one):
            kind = type(holder)
            if kind is enumerate:
                _advance_enumerate(holder, count)
            elif kind is zip:
                _advance_zip(holder, one, count)
            elif kind is not GeneratorType:
                continue
            waiting.append((holder, depth - 1))


def _advance_enumerate(counter: Any, count: int) -> None:
    now = counter.__reduce__()[1][1]
    place = ctypes.c_ssize_t.from_address(id(counter) + object.__basicsize__)
    if place.value == now:  # as CPython lays it out
        place.value = now + count
    if counter.__reduce__()[1][1] != now + count:
        raise CellError("this Python cannot go on in the middle of a loop over enumerate(loader)")


def _advance_zip(zipped: Any, known: Any, count: int) -> None:
    """The other iterators, but for passes over loaders: these are skipped by themselves."""
    for other in zipped.__reduce__()[1]:
        if other is known or hasattr(other, "standing") or type(other) in (enumerate, zip, GeneratorType):
            continue
        for _ in range(count):
            if next(other, _END) is _END:
                break


_END = object()
