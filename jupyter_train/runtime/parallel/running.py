"""Running statistics that each rank updated by its share of a batch: averaged before anybody reads them.

The update is linear in the statistics of the batch, so that the average over
the ranks, weighted by their samples, is the update by the average. Of a mean
(and of everything that InstanceNorm keeps) that is the global batch's, to
rounding; of a variance it lacks what lies between the shares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from jupyter_train.runtime.parallel.shares import Share


class RunningStatistics:
    """Buffers to be made equal over the ranks. Main thread of a rank.

    Args:
        total: the sum over the ranks of a flat tensor, in place; collective.
    """

    def __init__(self, total: Callable[[torch.Tensor], None]) -> None:
        self._total = total
        self._changed: dict[int, tuple[torch.Tensor, float]] = {}

    def changed(self, buffers: tuple[torch.Tensor, ...], share: Share) -> None:
        """This rank's part of a batch went into ``buffers``."""
        weight = share.mine / share.total
        for buffer in buffers:
            self._changed[id(buffer)] = (buffer, weight)

    def settle(self) -> None:
        """Average them; collective where there are some. Called after a backward, where all ranks are in step."""
        if not self._changed:
            return
        changed = list(self._changed.values())
        self._changed.clear()
        with torch.no_grad():
            flat = torch.cat([(buffer.detach() * weight).flatten().double() for buffer, weight in changed])
            self._total(flat)
            sizes = [buffer.numel() for buffer, _ in changed]
            for (buffer, _), mean in zip(changed, torch.split(flat, sizes), strict=True):
                buffer.copy_(mean.view(buffer.shape))
