"""What can go wrong between the ranks, apart from errors.RanksDiverged."""

from __future__ import annotations

from jupyter_train.errors import CellError


class PeerLost(RuntimeError):
    """Another rank failed or vanished, so that this one cannot go on.

    Never the reason of a run: the other rank's own error is.
    """


class NotSplittable(CellError):
    """A batch was split whose loss is no sum over its samples: going on would train something else."""
