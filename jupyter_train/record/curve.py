"""The curves of a run: what its ranks measured, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNKS_MERGED_AT = 64


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric of one rank: a value at a step. Chunks are merged now and then, so that appending stays cheap."""

    chunks: tuple[tuple[NDArray[np.int64], NDArray[np.float64]], ...] = ()

    def extended(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> Curve:
        """This curve with more points behind it."""
        if not len(steps):
            return self
        chunks = (*self.chunks, (steps, values))
        if len(chunks) <= _CHUNKS_MERGED_AT:
            return Curve(chunks)
        # Only as far back as chunks are small: each point is copied log(n) times, not once per merge.
        first, points = len(chunks) - 1, len(steps)
        while first and len(chunks[first - 1][0]) <= 2 * points:
            first -= 1
            points += len(chunks[first][0])
        small = chunks[first:]
        merged = (np.concatenate([c[0] for c in small]), np.concatenate([c[1] for c in small]))
        return Curve((*chunks[:first], merged))

    @property
    def count(self) -> int:
        """How many points it has."""
        return sum(len(steps) for steps, _ in self.chunks)

    def cut(self, points: int) -> Curve:
        """The first ``points`` of it."""
        kept: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        for steps, values in self.chunks:
            if points <= 0:
                break
            kept.append((steps[:points], values[:points]))
            points -= len(steps)
        return Curve(tuple(kept))

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps, shape ``(points,)``."""
        return np.concatenate([c[0] for c in self.chunks]) if self.chunks else np.empty(0, np.int64)

    @property
    def values(self) -> NDArray[np.float64]:
        """Values, shape ``(points,)``; NaN and infinity are results."""
        return np.concatenate([c[1] for c in self.chunks]) if self.chunks else np.empty(0, np.float64)

    @property
    def last(self) -> tuple[int, float] | None:
        """The newest point."""
        if not self.chunks:
            return None
        steps, values = self.chunks[-1]
        return int(steps[-1]), float(values[-1])


Curves = Mapping[str, Mapping[int, Curve]]
"""By name, and then by rank."""


def points_of(curves: Curves, rank: int) -> dict[str, int]:
    """How many points ``rank`` has of each curve."""
    return {name: of_ranks[rank].count for name, of_ranks in curves.items() if rank in of_ranks}


def cut_back(curves: Curves, points: Mapping[int, Mapping[str, int]]) -> dict[str, dict[int, Curve]]:
    """``curves`` with no more points of each rank than ``points`` says, by rank and name; others have none."""
    cut: dict[str, dict[int, Curve]] = {}
    for name, of_ranks in curves.items():
        kept = {
            rank: curve.cut(points[rank][name])
            for rank, curve in of_ranks.items()
            if points.get(rank, {}).get(name)
        }
        if kept:
            cut[name] = kept
    return cut


class Measured:
    """Points on their way into curves."""

    def __init__(self) -> None:
        self._pieces: dict[str, dict[int, list[tuple[NDArray[np.int64], NDArray[np.float64]]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, rank: int, columns: Mapping[str, Any]) -> None:
        """The points in ``columns`` of a ``metrics`` event: all of them or none.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: they are not as documented.
        """
        found = []
        for name, column in columns.items():
            steps = np.asarray(column["step"], np.int64)
            values = np.asarray(column["value"], np.float64)
            if steps.ndim != 1 or steps.shape != values.shape:
                raise ValueError(f"steps and values of {name!r} differ in number")
            found.append((name, (steps, values)))
        for name, piece in found:
            self._pieces.setdefault(name, {}).setdefault(rank, []).append(piece)

    def put_into(self, curves: Curves) -> Curves:
        """``curves`` with all of them behind it; here they are forgotten."""
        if not self._pieces:
            return curves
        longer = dict(curves)
        for name, of_ranks in self._pieces.items():
            known = dict(longer.get(name, {}))
            for rank, pieces in of_ranks.items():
                steps, values = pieces[0]
                if len(pieces) > 1:
                    steps = np.concatenate([piece[0] for piece in pieces])
                    values = np.concatenate([piece[1] for piece in pieces])
                known[rank] = known.get(rank, Curve()).extended(steps, values)
            longer[name] = known
        self._pieces = {}
        return longer
