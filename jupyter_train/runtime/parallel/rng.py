"""Two random streams per rank: one that all ranks share, one of its own.

Outside split loops, and while a sampler draws, all ranks read the shared
stream, so that initial weights, shuffles and whole passes come out alike.
Inside a split loop each rank has its own (dropout, augmentation): ranks see
shares of different sizes and would otherwise drift apart.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from jupyter_train.runtime.parallel.patches import Patches

_PRIME = 1_000_003


class Streams:
    """The random state of torch, numpy and ``random``, and the other one. Main thread of a rank."""

    def __init__(self, rank: int, device: torch.device) -> None:
        self.rank = rank
        self._cuda = device if device.type == "cuda" else None
        self.is_private = False
        self._other = self._fresh(zlib.crc32(torch.get_rng_state().numpy().tobytes()))

    def _fresh(self, seed: int) -> tuple[Any, ...]:
        own = (seed * _PRIME + 7919 * (self.rank + 1)) % (1 << 62)
        torch_state = torch.Generator().manual_seed(own).get_state()
        numpy_state = np.random.RandomState(own % (1 << 32)).get_state()
        cuda_state = None
        if self._cuda is not None:
            cuda_state = torch.Generator(self._cuda).manual_seed(own).get_state()
        return torch_state, numpy_state, random.Random(own).getstate(), cuda_state

    def _swap(self) -> None:
        cuda_state = torch.cuda.get_rng_state(self._cuda) if self._cuda is not None else None
        now = (torch.default_generator.get_state(), np.random.get_state(), random.getstate(), cuda_state)
        torch.default_generator.set_state(self._other[0])
        np.random.set_state(self._other[1])
        random.setstate(self._other[2])
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._other[3], self._cuda)
        self._other = now

    def use(self, *, private: bool) -> None:
        """Go on in this rank's own stream, or in the shared one."""
        if private is not self.is_private:
            self._swap()
            self.is_private = private

    @contextmanager
    def shared(self) -> Iterator[None]:
        """The shared stream for a while."""
        before = self.is_private
        self.use(private=False)
        try:
            yield
        finally:
            self.use(private=before)

    def install(self, patches: Patches) -> None:
        """Let ``torch.manual_seed`` reset both streams."""
        original = torch.random.manual_seed

        def manual_seed(seed: Any) -> torch.Generator:
            before = self.is_private
            self.use(private=False)
            generator: torch.Generator = original(seed)
            self._other = self._fresh(int(seed))
            self.use(private=before)
            return generator

        patches.replace(torch, "manual_seed", manual_seed)
        patches.replace(torch.random, "manual_seed", manual_seed)
