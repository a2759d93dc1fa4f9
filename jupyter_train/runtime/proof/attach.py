"""Puts the witnesses in place: that of rank 0, and that of the shadow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.proof.chance import Chance
from jupyter_train.runtime.proof.recording import Recording
from jupyter_train.runtime.proof.witness import Witness

if TYPE_CHECKING:
    from jupyter_train.runtime.observe import Observer
    from jupyter_train.runtime.parallel import Parallel
    from jupyter_train.runtime.parallel.sites import Site


def watch_rank(
    observer: Observer,
    parallel: Parallel,
    *,
    begun: Callable[[int], None],
    full: Callable[[Recording], None],
) -> Witness:
    """Record the first backwards from the first one on that is computed on shares.

    Args:
        begun: told its number.
        full: told when all are recorded.
    """

    def begins(number: int) -> bool:
        if not parallel.has_share:
            return False
        begun(number)
        return True

    known: set[int] = set()

    def keeps(tensor: object) -> bool:
        known.update(map(id, parallel.parameters))
        return id(tensor) in known

    observer.witness = witness = Witness(
        sites=observer.sites, begins=begins, keeps=keeps, others=lambda: parallel.parameters, full=full
    )
    return witness


def watch_alone(observer: Observer, *, first: int, full: Callable[[Recording], None]) -> Solo:
    """Record the same backwards in a process that runs the cell alone, from number ``first`` on."""
    return Solo(observer, first=first, full=full)


class Solo:
    """The witness of a process that runs the cell alone, and what it drew meanwhile."""

    def __init__(self, observer: Observer, *, first: int, full: Callable[[Recording], None]) -> None:
        self._chance = Chance()
        self._patches = Patches()
        self._chance.install(self._patches)
        self._first = first
        self._witness = Witness(
            sites=observer.sites,
            begins=lambda number: number == first,
            full=lambda _: full(self.recording),
            keeps_modules=True,
        )
        self._count = 0
        observer.witness = self

    @property
    def recording(self) -> Recording:
        """What was kept so far, with who drew random numbers."""
        found = self._witness.recording
        draws = self._chance.draws(list(self._witness.modules.values()))
        return replace(found, draws=draws, coarse=self._chance.coarse)

    def backward(self, site: Site, tensors: Any, loss: Any) -> None:
        """See `Witness`."""
        self._count += 1
        self._chance.step()
        if self._count < self._first:
            self._chance.begin()
        self._witness.backward(site, tensors, loss)
        if self._count == self._first:
            self._chance.watch(self._witness.generators)

    def close(self) -> None:
        """Leave torch as it was."""
        self._patches.undo()
