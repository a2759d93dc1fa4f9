"""train.sum, train.mean and train.gather over the ranks of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from jupyter_train.runtime.parallel.groups import Groups

_NUMBERS = (bool, int, float, np.generic)


class Collectives:
    """Sums and gathers small values. Main thread of a rank; every rank must call it at the same place.

    Args:
        groups: made on the first call, so that runs which never ask need none.
        before: called ahead of each collective, to compare where the ranks are.
    """

    def __init__(self, *, ranks: int, groups: Callable[[], Groups], before: Callable[[], None]) -> None:
        self._ranks = ranks
        self._groups = groups
        self._before = before

    def sum(self, value: Any) -> Any:
        """The sum over the ranks of a number, tensor or numpy array; of the same kind as ``value``.

        Raises:
            TypeError: ``value`` is none of these.
        """
        if isinstance(value, torch.Tensor):
            return self._sum_tensor(value)
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                raise TypeError(
                    "train.sum and train.mean take numbers, tensors or numpy arrays of numbers, not objects"
                )
            return self._total(list(self.gather(value)))
        if isinstance(value, _NUMBERS):
            return self._total(
                list(self.gather(int(value) if isinstance(value, (bool, np.bool_)) else value))
            )
        raise TypeError(
            f"train.sum and train.mean take numbers, tensors or numpy arrays, not a {type(value).__name__}"
        )

    def mean(self, value: Any) -> Any:
        """The mean over the ranks; whole numbers become floats.

        Raises:
            TypeError: ``value`` is no number, tensor or numpy array.
        """
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and not value.is_complex():
            value = value.to(torch.get_default_dtype())
        total = self.sum(value)
        return total if self._ranks == 1 and isinstance(total, float) else total / self._ranks

    def gather(self, value: Any) -> list[Any]:
        """Every rank's ``value``, by rank: any small object that pickles; tensors come on the host."""
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
        if self._ranks == 1:
            return [value]
        self._before()
        return self._groups().exchange(value)

    def _sum_tensor(self, value: torch.Tensor) -> torch.Tensor:
        total = value.detach().clone()
        if self._ranks == 1:
            return total
        if total.dtype is torch.bool:
            total = total.long()
        self._before()
        flat = total.contiguous().view(-1)
        if flat.is_complex():
            flat = torch.view_as_real(flat).contiguous()
        self._groups().all_sum(flat)
        if total.is_complex():
            return torch.view_as_complex(flat).view(total.shape)
        return flat.view(total.shape)

    @staticmethod
    def _total(values: list[Any]) -> Any:
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total
