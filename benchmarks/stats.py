"""Medians, percentiles and their intervals. Pure: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_DRAWN_AT_ONCE = 4_000_000  #: numbers held in memory while resampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is said of a list of figures, in their own unit."""

    n: int
    median: float
    p95: float
    p99: float
    ci95: tuple[float, float]  #: of the median


def summarise(values: Sequence[float], *, seed: int = 0) -> Summary:
    """Median, percentiles (linear between neighbours) and the interval of the median.

    Raises:
        ValueError: there are no values, or some are not finite.
    """
    figures = np.asarray(values, dtype=np.float64)
    if not len(figures):
        raise ValueError("nothing was measured")
    if not np.isfinite(figures).all():
        raise ValueError("a figure is not finite")
    median, p95, p99 = np.quantile(figures, [0.5, 0.95, 0.99])
    return Summary(
        n=len(figures),
        median=float(median),
        p95=float(p95),
        p99=float(p99),
        ci95=interval_of_median(figures, seed=seed),
    )


def interval_of_median(
    values: NDArray[np.float64], *, resamples: int = _RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the median (percentile method, Efron 1979).

    Says nothing about a drift that all values share; interleaving the subjects
    is what guards against that.
    """
    source = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _DRAWN_AT_ONCE // len(values)))
    medians: list[NDArray[np.float64]] = []
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = values[source.integers(len(values), size=(rows, len(values)))]
        medians.append(np.median(drawn, axis=1))
    low, high = np.quantile(np.concatenate(medians), [0.025, 0.975])
    return float(low), float(high)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours divided by theirs, pair by pair: what both shared in a pair falls out.

    Raises:
        ValueError: the lists do not pair up.
    """
    return [a / b for a, b in zip(ours, theirs, strict=True)]
