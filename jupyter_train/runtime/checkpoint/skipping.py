"""Passes over loaders that go on behind the batches that are done."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset

from jupyter_train.errors import CellError


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
