"""What the loaders of torch hand out, and what stands for it here."""

from __future__ import annotations

from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter


def is_iterator(value: Any) -> bool:
    """Over a loader."""
    return isinstance(value, _BaseDataLoaderIter) or callable(getattr(type(value), "standing", None))
