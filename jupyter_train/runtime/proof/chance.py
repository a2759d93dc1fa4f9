"""Does a step of the cell draw random numbers? Then ranks, each with its own, cannot equal one process.

Looked at in the shadow, which draws what one process draws: the states of torch's,
numpy's and Python's generators before and after. What loaders and their samplers
draw is shared by all ranks and does not count; what data sets draw does, also in
loader workers.
"""

from __future__ import annotations

import functools
import mmap
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data._utils import fetch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from jupyter_train.runtime.parallel.patches import Patches

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.RNNBase)


class Chance:
    """Notices draws from the global generators. Main thread of the shadow; its loaders' workers share a flag."""

    def __init__(self) -> None:
        self._own: tuple[Any, ...] = ()
        self.in_loop = False
        self.coarse = ""  #: a type below 32 bits that autocast was asked for
        self._in_data = mmap.mmap(-1, 1)
        self._mark: tuple[Any, ...] | None = (
            None  #: the states since when draws count; None outside of a pass
        )

    @property
    def in_data(self) -> bool:
        """A data set or a collate function has drawn."""
        return self._in_data[0] != 0

    def step(self) -> None:
        """A backward has ended: who has drawn since the batch came?"""
        if self._mark is not None:
            now = self._states()
            self.in_loop = self.in_loop or now != self._mark
            self._mark = now

    def watch(self, generators: Sequence[Any]) -> None:
        """Generators of the cell's own count as well: ranks draw from copies of them, for shares of other sizes."""
        self._own = tuple(generators)
        if self._mark is not None:
            self._mark = self._states()

    def _states(self) -> tuple[Any, ...]:
        return (*_states(), *map(_state_of, self._own))

    def begin(self) -> None:
        """What was drawn up to now does not count: the first step to be compared begins."""
        self.in_loop = False
        self._in_data[0] = 0

    def draws(self, modules: list[nn.Module]) -> tuple[str, ...]:
        """Who has drawn, in words."""
        out = []
        if self.in_loop:
            drops = any(_drops(module) for module in modules)
            out.append("the loop (dropout)" if drops else "the loop")
        if self.in_data:
            out.append("the data set (augmentation)")
        return tuple(out)

    def install(self, patches: Patches) -> None:
        """Watch loaders and autocast."""
        self._exempt(patches, DataLoader, "__iter__")
        self._exempt(patches, _BaseDataLoaderIter, "__next__")
        for fetcher in (fetch._MapDatasetFetcher, fetch._IterableDatasetFetcher):
            self._watch(patches, fetcher)
        enter: Callable[[Any], Any] = torch.autocast.__enter__

        @functools.wraps(enter)
        def entered(context: Any) -> Any:
            dtype = getattr(context, "fast_dtype", None)
            if getattr(context, "_enabled", False) and dtype in (torch.float16, torch.bfloat16):
                self.coarse = str(dtype).removeprefix("torch.")
            return enter(context)

        patches.replace(torch.autocast, "__enter__", entered)

    def _exempt(self, patches: Patches, owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def called(*args: Any, **kwargs: Any) -> Any:
            self.step()
            try:
                value = original(*args, **kwargs)
            except StopIteration:
                self._mark = None  # between two passes ranks draw alike
                raise
            if name == "__next__" or self._mark is not None:
                self._mark = self._states()
            return value

        patches.replace(owner, name, called)

    def _watch(self, patches: Patches, fetcher: Any) -> None:
        original = fetcher.fetch

        @functools.wraps(original)
        def fetched(self_: Any, index: Any) -> Any:
            before = _states()
            batch = original(self_, index)
            if _states() != before:
                self._in_data[0] = 1
            return batch

        patches.replace(fetcher, "fetch", fetched)


def _states() -> tuple[Any, ...]:
    numbers: Any = np.random.get_state()
    cuda: Any = torch.cuda
    device = cuda.get_rng_state().numpy().tobytes() if cuda.is_initialized() else b""
    host = torch.default_generator.get_state().numpy().tobytes()
    return (host, device, numbers[1].tobytes(), *numbers[2:], random.getstate())


def _state_of(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return pickle.dumps(generator.bit_generator.state)
    return pickle.dumps(generator.get_state())


def _drops(module: nn.Module) -> bool:
    return any(
        isinstance(one, _DROPOUTS) and one.training and getattr(one, "p", getattr(one, "dropout", 0.0))
        for one in module.modules()
    )
