"""Runs that overlap: what one brought into the notebook while another went on. The later to end wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Another run did the same meanwhile."""

    run: str  #: what it is called
    name: str  #: of the notebook, that the object is reached by
    wins: bool  #: it ended later


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What other runs brought in between a run's capture and its own return."""

    names: Mapping[str, Touch]
    objects: Mapping[int, Touch]  #: by ``id`` of objects of the capture

    def keeps(self, identity: int | None) -> bool:
        """Whether the object of that ``id`` stays as another run left it."""
        touch = self.objects.get(identity) if identity is not None else None
        return touch is not None and touch.wins


NOBODY = Others(names={}, objects={})


def sentence(name: str, touch: Touch) -> str:
    """What the user is told about ``name``, which two runs return."""
    if touch.wins:
        return f'{name} stays as run {touch.run} left it, which ended later; run.result("{name}") has this run\'s'
    return f"{name} was set by run {touch.run} too, which ended earlier: this run's value replaced it"
