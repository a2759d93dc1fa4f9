"""What the ranks of a run wrote down of their steps, over all attempts. Pure but for reading the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of one rank."""

    attempt: int
    rank: int
    time: float  #: unix time, seconds
    epoch: int
    step: int  #: from 1, over the whole run
    ids: tuple[int, ...]  #: of this rank's samples


def read(folder: Path) -> list[Step]:
    """All steps that were written down, in order of attempts; a half-written last line is left out."""
    found = []
    for file in sorted(folder.glob("seen-*")):
        _, attempt, rank = file.name.split("-")
        for line in file.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            time, epoch, step, *ids = line.split()
            found.append(
                Step(
                    attempt=int(attempt),
                    rank=int(rank),
                    time=float(time),
                    epoch=int(epoch),
                    step=int(step),
                    ids=tuple(map(int, ids)),
                )
            )
    return found


def that_counts(steps: Iterable[Step]) -> list[Step]:
    """The history without what was lost: of an attempt, what came before the first step of the next one that did any."""
    known = list(steps)
    begins = {
        attempt: min(s.step for s in known if s.attempt == attempt) for attempt in {s.attempt for s in known}
    }
    return [
        s for s in known if all(s.step < first for attempt, first in begins.items() if attempt > s.attempt)
    ]


def ids_are_complete(steps: Sequence[Step], *, samples: int, epochs: int) -> bool:
    """Each sample exactly once in each epoch, over all ranks."""
    by_epoch: dict[int, list[int]] = {epoch: [] for epoch in range(epochs)}
    for one in steps:
        by_epoch.setdefault(one.epoch, []).extend(one.ids)
    return len(by_epoch) == epochs and all(sorted(ids) == list(range(samples)) for ids in by_epoch.values())


def repeated(steps: Sequence[Step]) -> dict[int, int]:
    """Of each attempt after the first that did a step: how many steps it did that had been done before."""
    found: dict[int, int] = {}
    furthest: Mapping[int, int] = {}
    for attempt in sorted({s.attempt for s in steps}):
        mine = [s.step for s in steps if s.attempt == attempt]
        before = max((last for other, last in furthest.items() if other < attempt), default=0)
        if attempt != min(s.attempt for s in steps):
            found[attempt] = max(0, before - min(mine) + 1)
        furthest = {**furthest, attempt: max(mine)}
    return found
