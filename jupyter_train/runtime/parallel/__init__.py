"""Data parallel without changing the cell: see docs/data-parallel.md.

``install()`` patches a rank's torch for the length of its cell; everything here
runs in the rank's main thread.
"""

from __future__ import annotations

from jupyter_train.runtime.parallel.errors import NotSplittable, PeerLost
from jupyter_train.runtime.parallel.wiring import Parallel, install

__all__ = ["NotSplittable", "Parallel", "PeerLost", "install"]
