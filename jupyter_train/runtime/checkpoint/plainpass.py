"""Passes over loaders where nothing is split: on one rank, and with ``--strategy none``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from jupyter_train.runtime.checkpoint.position import PassStanding
from jupyter_train.runtime.checkpoint.skipping import skip
from jupyter_train.runtime.parallel.patches import Patches

if TYPE_CHECKING:
    from jupyter_train.runtime.checkpoint.passes import Passes
    from jupyter_train.runtime.parallel.sites import Sites


class PlainPass:
    """One pass, which counts."""

    def __init__(self, loader: Any, inner: Any, passes: Passes, *, where: str) -> None:
        self.loader = loader
        self.began: Mapping[str, Any] | None = None
        self._inner = inner
        self._passes = passes
        self._where = where
        self.done = 0
        self.persists = False

    def __iter__(self) -> PlainPass:
        return self

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)

    def __next__(self) -> Any:
        self._passes.next(self)
        try:
            batch = next(self._inner)
        except StopIteration:
            self._passes.ended(self)
            raise
        self.done += 1
        return batch

    def standing(self) -> PassStanding:
        """See `AnyPass`."""
        return PassStanding(done=self.done, persists=self.persists)

    def skip(self) -> None:
        """See `AnyPass`."""
        skip(self.loader, self._inner, where=self._where)

    def stand(self, standing: PassStanding) -> None:
        """See `AnyPass`."""
        self.done = standing.done

    def __del__(self) -> None:
        try:
            self._passes.ended(self)
        except Exception:
            pass  # while the interpreter ends, anything may be gone


def install(patches: Patches, passes: Passes, sites: Sites) -> None:
    """Stand in for ``DataLoader.__iter__``."""
    original: Callable[[Any], Any] = DataLoader.__iter__

    def __iter__(loader: Any) -> Any:
        frame = sites.frame(2)
        if frame is None:
            return original(loader)
        persists = getattr(loader, "_iterator", None) is not None
        standing = passes.begins(frame, loader)
        if standing is not None and standing.persists and not persists:
            original(loader)
            passes.begins_again(loader)
            persists = True
        one = PlainPass(loader, original(loader), passes, where=str(sites.of(frame)))
        one.persists = persists
        passes.begun(frame, one)
        return one

    patches.replace(DataLoader, "__iter__", __iter__)
