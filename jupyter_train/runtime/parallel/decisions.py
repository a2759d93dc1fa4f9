"""Single random numbers that the body of a split loop draws by ``random`` or numpy: the same on all ranks.

Such a number decides for the whole batch (teacher forcing, the λ of mixup, a
size to crop to); drawn by each rank alone it would send the ranks different ways.
Numbers drawn by the array belong to samples, and stay each rank's own.
"""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jupyter_train.runtime.parallel.patches import Patches

_PYTHON = (
    *("random", "uniform", "triangular", "randint", "randrange", "choice", "getrandbits", "gauss"),
    *("normalvariate", "lognormvariate", "betavariate", "expovariate", "gammavariate"),
)
_NUMPY = {
    "rand": 0,
    "randn": 0,
    "random": 0,
    "random_sample": 0,
    "standard_normal": 0,
    "choice": 1,
    "exponential": 1,
    "poisson": 1,
    "uniform": 2,
    "normal": 2,
    "beta": 2,
    "binomial": 2,
    "randint": 2,
    "gamma": 2,
    "lognormal": 2,
    "laplace": 2,
}  #: at which place the size is given


class Decisions:
    """A stream for each batch, the same on all ranks. Main thread of a rank."""

    def __init__(self, seed: int, *, is_asked: Callable[[], bool]) -> None:
        self._is_asked = is_asked
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Begin anew; to be called alike on all ranks."""
        self._seed, self._batch = seed, 0
        self._python: random.Random | None = None
        self._numpy: np.random.RandomState | None = None

    def next_batch(self) -> None:
        """The next batch has come: ranks that drew differently often are together again."""
        self._batch += 1
        self._python = self._numpy = None

    def state(self) -> list[int]:
        """Where it stands at the end of a batch's work, as plain numbers."""
        return [self._seed, self._batch]

    def set_state(self, state: Sequence[int]) -> None:
        """Go on from there."""
        self.reset(int(state[0]))
        self._batch = int(state[1])

    def _fresh(self) -> int:
        return zlib.crc32(f"{self._seed} {self._batch}".encode())

    def _of_python(self) -> random.Random:
        if self._python is None:
            self._python = random.Random(self._fresh())
        return self._python

    def _of_numpy(self) -> np.random.RandomState:
        if self._numpy is None:
            self._numpy = np.random.RandomState(self._fresh())
        return self._numpy

    # -- patches

    def install(self, patches: Patches) -> None:
        """Stand in for the functions of ``random`` and ``np.random`` that give one number."""
        own = random.random
        for name in _PYTHON:
            patches.replace(random, name, self._for_python(name, own))
        own_of_numpy = np.random.random_sample
        for name, place in _NUMPY.items():
            patches.replace(np.random, name, self._for_numpy(name, place, own_of_numpy))
        for module in (random, np.random):
            patches.replace(module, "seed", self._for_seed(module.seed))

    def _for_python(self, name: str, own: Callable[[], float]) -> Callable[..., Any]:
        original = getattr(random, name)

        @functools.wraps(original)
        def draw(*args: Any, **kwargs: Any) -> Any:
            if not self._is_asked():
                return original(*args, **kwargs)
            own()  # whoever watches the rank's own stream sees that something was drawn
            return getattr(self._of_python(), name)(*args, **kwargs)

        return draw

    def _for_numpy(self, name: str, place: int, own: Callable[[], float]) -> Callable[..., Any]:
        original = getattr(np.random, name)

        @functools.wraps(original)
        def draw(*args: Any, **kwargs: Any) -> Any:
            if not self._is_asked() or _is_by_the_array(name, place, args, kwargs):
                return original(*args, **kwargs)
            own()
            return getattr(self._of_numpy(), name)(*args, **kwargs)

        return draw

    def _for_seed(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def seed(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            given = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(given, (int, np.integer)):
                self.reset(int(given))

        return seed


def _is_by_the_array(name: str, place: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if len(args) > place or kwargs.get("size") is not None:
        size = kwargs.get("size") if len(args) <= place else args[place]
        if size is not None and size != ():
            return True
    parameters = args[1:] if name == "choice" else args
    return any(np.ndim(one) > 0 for one in parameters)
