"""train.sum, train.mean and train.gather over the ranks of a run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from jupyter_train.runtime.parallel.groups import Groups

_NUMBERS = (bool, int, float, np.generic)
SMALL_BYTES = 2048  #: a tensor of this size travels with its description, in one collective


@dataclass(frozen=True, slots=True, kw_only=True)
class _Brought:
    """What one rank comes with. Compared before anything is added: a collective over different shapes never ends."""

    call: Literal["sum or mean", "gather"]
    what: str  #: in words; the same on ranks that can be added
    value: Any  #: pickled by gather; None where a tensor follows in a collective of its own


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
            ValueError: the ranks' values have different shapes or types; on every rank, with each rank's.
        """
        if isinstance(value, torch.Tensor):
            return self._sum_tensor(value)
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                raise TypeError(
                    "train.sum and train.mean take numbers, tensors or numpy arrays of numbers, not objects"
                )
            return self._sum(value, f"an array of shape {value.shape}")
        if isinstance(value, _NUMBERS):
            return self._sum(int(value) if isinstance(value, (bool, np.bool_)) else value, "a number")
        raise TypeError(
            f"train.sum and train.mean take numbers, tensors or numpy arrays, not a {type(value).__name__}"
        )

    def mean(self, value: Any) -> Any:
        """The mean over the ranks; whole numbers become floats.

        Raises:
            TypeError, ValueError: as :meth:`sum`.
        """
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and not value.is_complex():
            value = value.to(torch.get_default_dtype())
        total = self.sum(value)
        return total if self._ranks == 1 and isinstance(total, float) else total / self._ranks

    def gather(self, value: Any) -> list[Any]:
        """Every rank's ``value``, by rank: any small object that pickles; tensors come on the host.

        Raises:
            TypeError: ``value`` does not pickle, on the rank that has it.
            ValueError: a rank's value cannot be put together again, on every rank; says whose and why.
        """
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
        if self._ranks == 1:
            return [value]
        try:
            data = pickle.dumps(value)
        except Exception as error:  # pickling runs the user's own code
            raise TypeError(f"train.gather got a {_kind(value)} that does not pickle: {error}") from error
        brought = self._meet(_Brought(call="gather", what=f"a {_kind(value)}", value=data))
        return [_loaded(one, rank) for rank, one in enumerate(brought)]

    def _sum(self, value: Any, what: str) -> Any:
        if self._ranks == 1:
            return value
        return _total([one.value for one in self._meet_alike(what, value)])

    def _sum_tensor(self, value: torch.Tensor) -> torch.Tensor:
        total = value.detach().clone()
        if self._ranks == 1:
            return total
        if total.dtype is torch.bool:
            total = total.long()
        kind = str(total.dtype).removeprefix("torch.")
        what = f"a {kind} tensor of shape {tuple(total.shape)}"
        if total.numel() * total.element_size() <= SMALL_BYTES:
            summed: torch.Tensor = _total([one.value for one in self._meet_alike(what, total.cpu())])
            return summed.to(total.device)
        self._meet_alike(what, None)
        flat = total.contiguous().view(-1)
        if flat.is_complex():
            flat = torch.view_as_real(flat).contiguous()
        self._groups().all_sum(flat)
        if total.is_complex():
            return torch.view_as_complex(flat).view(total.shape)
        return flat.view(total.shape)

    def _meet_alike(self, what: str, value: Any) -> Sequence[_Brought]:
        brought = self._meet(_Brought(call="sum or mean", what=what, value=value))
        if len({one.what for one in brought}) > 1:
            raise ValueError(
                f"train.sum and train.mean need the same shape and type on every rank: {_listed(brought)}"
            )
        return brought

    def _meet(self, mine: _Brought) -> Sequence[_Brought]:
        """Everybody's, by rank."""
        self._before()
        brought: list[_Brought] = self._groups().exchange(mine)
        if len({one.call for one in brought}) > 1:
            calls = "; ".join(f"rank {rank} is in train.{one.call}" for rank, one in enumerate(brought))
            raise ValueError(f"every rank has to call the same of train.sum, mean and gather: {calls}")
        return brought


def _listed(brought: Sequence[_Brought]) -> str:
    """``rank 0 has a number, ranks 1, 2 have …``"""
    ranks: dict[str, list[int]] = {}
    for rank, one in enumerate(brought):
        ranks.setdefault(one.what, []).append(rank)
    return ", ".join(
        f"rank {those[0]} has {what}"
        if len(those) == 1
        else f"ranks {', '.join(map(str, those))} have {what}"
        for what, those in ranks.items()
    )


def _loaded(brought: _Brought, rank: int) -> Any:
    try:
        return pickle.loads(brought.value)
    except Exception as error:  # as above
        raise ValueError(
            f"train.gather: {brought.what} of rank {rank} cannot be put together again: {type(error).__name__}: {error}"
        ) from error


def _kind(value: Any) -> str:
    return type(value).__qualname__


def _total(values: list[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
