"""Dask's own random numbers, kept apart from the notebook's.

Dask estimates the size of a message from a random sample of it, and spreads its
waiting times, by the global generator of ``random``: a notebook that was seeded
would come out otherwise for every message that its kernel sends in the background.
"""

from __future__ import annotations

import random


def keep_apart() -> None:
    """Give the modules of Dask that draw numbers in a kernel a generator of their own. Twice does nothing."""
    import dask.sizeof
    import distributed.comm.core
    import distributed.utils_comm

    for module in (dask.sizeof, distributed.comm.core, distributed.utils_comm):
        # A Random instance has all that they call of the module; where they call nothing any more, nothing is done.
        if getattr(module, "random", None) is random:
            module.random = _OWN


_OWN = random.Random()
