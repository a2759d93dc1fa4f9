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


def sentences(touched: Mapping[str, Touch]) -> list[str]:
    """What the user is told about names that two runs return: one sentence for each other run."""
    by_run: dict[tuple[str, bool], list[str]] = {}
    for name, touch in touched.items():
        by_run.setdefault((touch.run, touch.wins), []).append(name)
    return [_sentence(names, run, wins=wins) for (run, wins), names in by_run.items()]


def _sentence(names: list[str], run: str, *, wins: bool) -> str:
    listed, several = ", ".join(names), len(names) > 1
    if wins:
        stay = f"stay as run {run} left them" if several else f"stays as run {run} left it"
        whose = "and the like have" if several else "has"
        return f'{listed} {stay}, which ended later; run.result("{names[0]}") {whose} this run\'s'
    were, replaced = ("were", "values replaced them") if several else ("was", "value replaced it")
    return f"{listed} {were} set by run {run} too, which ended earlier: this run's {replaced}"
