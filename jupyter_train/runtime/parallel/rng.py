"""Two random streams per rank: one that all ranks share, one of its own.

Outside split loops, and while a sampler draws, all ranks read the shared
stream, so that initial weights, shuffles and whole passes come out alike.
Inside a split loop each rank has its own (dropout, augmentation): ranks see
shares of different sizes and would otherwise drift apart. Single numbers that the
loop's body draws by ``random`` and numpy are the exception: see ``decisions``.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from jupyter_train.runtime.checkpoint import randomness
from jupyter_train.runtime.parallel.decisions import Decisions
from jupyter_train.runtime.parallel.patches import Patches

_PRIME = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class _States:
    host: torch.Tensor
    bits: Any  #: numpy's bit generator, in its own state
    python: Any
    cuda: torch.Tensor | None


class Streams:
    """The random state of torch, numpy and ``random``, and the other one. Main thread of a rank."""

    def __init__(self, rank: int, device: torch.device) -> None:
        self.rank = rank
        self._cuda = device if device.type == "cuda" else None
        self.is_private = False
        self.is_reading = False  #: a data set is being read, which draws for samples
        seed = zlib.crc32(torch.get_rng_state().numpy().tobytes())
        self._other = self._fresh(seed)
        self.decisions = Decisions(seed, is_asked=lambda: self.is_private and not self.is_reading)

    def _fresh(self, seed: int) -> _States:
        own = (seed * _PRIME + 7919 * (self.rank + 1)) % (1 << 62)
        bits = np.random.MT19937()
        bits._legacy_seeding(own % (1 << 32))
        cuda = None
        if self._cuda is not None:
            cuda = torch.Generator(self._cuda).manual_seed(own).get_state()
        return _States(
            host=torch.Generator().manual_seed(own).get_state(),
            bits=bits,
            python=random.Random(own).getstate(),
            cuda=cuda,
        )

    def _swap(self) -> None:
        other = self._other
        self._other = _States(
            host=torch.default_generator.get_state(),
            bits=np.random.get_bit_generator(),  # type: ignore[attr-defined]
            python=random.getstate(),
            cuda=torch.cuda.get_rng_state(self._cuda) if self._cuda is not None else None,
        )
        torch.default_generator.set_state(other.host)
        # Its state alone would take 80 µs to read.
        np.random.set_bit_generator(other.bits)  # type: ignore[attr-defined]
        random.setstate(other.python)
        if self._cuda is not None and other.cuda is not None:
            torch.cuda.set_rng_state(other.cuda, self._cuda)

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

    @contextmanager
    def shared_by_torch(self) -> Iterator[None]:
        """The shared stream for a while, for what draws from torch on the host alone; cheap."""
        if not self.is_private:
            yield
            return
        generator, other = torch.default_generator, self._other
        own = generator.get_state()
        generator.set_state(other.host)
        try:
            yield
        finally:
            self._other = replace(other, host=generator.get_state())
            generator.set_state(own)

    def place(self) -> int:
        """A number that tells where all ranks are: another one with each pass, the same in an attempt that goes on there."""
        state = torch.default_generator.get_state() if not self.is_private else self._other.host
        return zlib.crc32(state.numpy().tobytes() + str(self.decisions.state()).encode())

    def states(self) -> dict[str, Any]:
        """Both streams, as plain values; where the process is in neither's middle."""
        with self.shared():
            shared = randomness.read(self._cuda)
        before = self.is_private
        self.use(private=True)
        own = randomness.read(self._cuda)
        self.use(private=before)
        return {"shared": shared, "own": own, "decisions": self.decisions.state()}

    def set_states(self, states: Mapping[str, Any]) -> None:
        """Go on from there, in whichever stream the process is in."""
        before = self.is_private
        self.use(private=False)
        randomness.write(states["shared"], self._cuda)
        if "own" in states:
            self.use(private=True)
            randomness.write(states["own"], self._cuda)
            self.decisions.set_state(states["decisions"])
        else:  # of a run with other ranks, or in which nothing was split
            seed = zlib.crc32(torch.get_rng_state().numpy().tobytes())
            self._other = self._fresh(seed)
            self.decisions.reset(seed)
        self.use(private=before)

    def install(self, patches: Patches) -> None:
        """Let ``torch.manual_seed`` reset both streams."""
        original = torch.random.manual_seed

        def manual_seed(seed: Any) -> torch.Generator:
            before = self.is_private
            self.use(private=False)
            generator: torch.Generator = original(seed)
            self._other = self._fresh(int(seed))
            self.decisions.reset(int(seed))
            self.use(private=before)
            return generator

        self.decisions.install(patches)
        patches.replace(torch, "manual_seed", manual_seed)
        patches.replace(torch.random, "manual_seed", manual_seed)
