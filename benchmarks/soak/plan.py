"""Which fault comes when, drawn before anything starts. Pure: a seed in, a plan out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.soak.cells import PLACES


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """One run that is interrupted."""

    place: str  #: where the ranks mostly are
    at_s: float  #: after the press
    again_after_s: float | None  #: a second one so long after the first, if the cell still runs


def interrupts(count: int, *, length_s: float, seed: int) -> Iterator[Interrupt]:
    """``count`` of them at uniformly random times of a run, every place in turn, in each every other time a second one.

    The second comes soon, so that it comes before the graceful end.
    """
    source = random.Random(seed)
    for i in range(count):
        turn, place = divmod(i, len(PLACES))
        yield Interrupt(
            place=PLACES[place],
            at_s=source.uniform(0, length_s),
            again_after_s=source.uniform(0.05, 1.0) if (place + turn) % 2 else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One run of which something is killed."""

    victim: str
    at_s: float  #: after the run is RUNNING
    choice: float  #: in [0, 1): which of several


def kills(count: int, victims: Sequence[str], *, length_s: float, seed: int) -> Iterator[Kill]:
    """``count`` of them at uniformly random times of a run, every kind of victim in turn."""
    source = random.Random(seed)
    for i in range(count):
        yield Kill(victim=victims[i % len(victims)], at_s=source.uniform(0, length_s), choice=source.random())


CYCLE_KINDS = ("run", "stop", "fail", "kill")


def cycles(count: int, *, seed: int) -> list[str]:
    """``count`` of the four kinds, equally many, in random order."""
    kinds = [CYCLE_KINDS[i % len(CYCLE_KINDS)] for i in range(count)]
    random.Random(seed).shuffle(kinds)
    return kinds
