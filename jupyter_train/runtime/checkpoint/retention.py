"""Which checkpoints may go: the newest few stay, the best by a metric, and whichever a retry would use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

KEEP_LAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """A checkpoint that one rank has written."""

    attempt: int
    number: int
    whole: bool = True  #: all ranks have, as far as can be seen from here
    metric: Mapping[str, float] = field(default_factory=dict, hash=False)


def ranking(best: str) -> tuple[str, float]:
    """The metric that ``best`` names, and the sign by which the best one has the smallest value.

    Raises:
        ValueError: it is not ``"name"``, ``"min name"`` or ``"max name"``.
    """
    words = best.split()
    if len(words) == 1:
        return words[0], 1.0
    if len(words) == 2 and words[0] in ("min", "max"):
        return words[1], 1.0 if words[0] == "min" else -1.0
    raise ValueError(f'best={best!r}: say best="val_loss", "min val_loss" or "max accuracy"')


def to_drop(there: Sequence[OnDisk], *, keep_last: int, best: str | None) -> list[OnDisk]:
    """Those of ``there`` that are not needed any more.

    From the newest whole one on all stay: a retry goes on from there until a newer one is whole.
    """
    ordered = sorted(there, key=lambda one: (one.number, one.attempt))
    kept = set(ordered[-max(keep_last, 1) :])
    newest_whole = max((k for k, one in enumerate(ordered) if one.whole), default=0)
    kept.update(ordered[newest_whole:])
    if best is not None and (first := best_of(ordered, best)) is not None:
        kept.add(first)
    return [one for one in ordered if one not in kept]


def best_of(there: Sequence[OnDisk], best: str) -> OnDisk | None:
    """The one with the best value; of several the newest. None where none has a value that can be compared."""
    name, sign = ranking(best)
    ranked = [one for one in there if one.whole and not math.isnan(one.metric.get(name, math.nan))]
    return min(ranked, key=lambda one: (sign * one.metric[name], -one.number), default=None)
