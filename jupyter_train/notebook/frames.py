"""Runs and metrics as DataFrames, at full resolution. Pure; pandas is imported where it is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jupyter_train.record import Curve, RunView

if TYPE_CHECKING:
    from jupyter_train.store.summary import RunSummary

Keys = NDArray[np.int64]
Floats = NDArray[np.float64]


def runs_frame(runs: Iterable[RunSummary], *, now: float) -> Any:
    """A DataFrame with a row per run; ``now`` is unix time, for those that go on. Needs pandas."""
    import pandas as pd

    rows = [
        {
            "run_id": run.run_id,
            "name": run.name,
            "state": str(run.state or ""),
            "reason": run.reason,
            "attempt": run.attempt,
            "ranks": run.ranks,
            "started": run.started,
            "ended": run.ended,
            "took_s": None if run.started is None else (run.ended or now) - run.started,
            "step": max((last.step for last in run.metrics.values()), default=None),
            "notebook": run.notebook,
            "cluster": run.cluster,
            **{f"params.{key}": value for key, value in _mapping(run.spec.get("params")).items()},
            **{f"tags.{key}": value for key, value in _mapping(run.spec.get("tags")).items()},
            **{f"metrics.{key}": last.value for key, last in run.metrics.items()},
        }
        for run in runs
    ]
    frame = pd.DataFrame(rows)
    for name in {"started", "ended"} & set(frame):
        frame[name] = pd.to_datetime(frame[name].astype("float64"), unit="s", utc=True)
    return frame


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def metrics_table(view: RunView) -> Any:
    """Every value over the steps, mean over the ranks; a step that has several values of a metric has several rows.

    A DataFrame with the step as its index; without pandas a dict of ``(steps, values)``.
    """
    if find_spec("pandas") is None:
        return mean_curves(view)
    import pandas as pd

    places, width, columns = _by_row(view)
    rows = _union([keys for keys, _ in columns.values()])
    table = {}
    for name, (keys, values) in columns.items():
        column = np.full(len(rows), np.nan)
        column[np.searchsorted(rows, keys)] = values
        table[name] = column
    return pd.DataFrame(table, index=pd.Index(places[rows // width], name="step", dtype="int64"))


def mean_curves(view: RunView) -> dict[str, tuple[Keys, Floats]]:
    """Steps and values of each metric, mean over the ranks."""
    places, width, columns = _by_row(view)
    return {name: (places[keys // width], values) for name, (keys, values) in columns.items()}


def _by_row(view: RunView) -> tuple[Keys, int, dict[str, tuple[Keys, Floats]]]:
    """All steps; how many rows each may have; and by metric the rows of its values, with their means.

    A row's number says which step, and which of its values. By the places of
    steps instead of the steps themselves, so that nothing overflows.
    """
    curves = {name: list(of_ranks.values()) for name, of_ranks in view.curves.items()}
    steps = {name: [curve.steps for curve in of_ranks] for name, of_ranks in curves.items()}
    places = _union([one for of_ranks in steps.values() for one in of_ranks])
    nths = {name: [_nth(one) for one in of_ranks] for name, of_ranks in steps.items()}
    width = 1 + max((int(n.max(initial=0)) for of_ranks in nths.values() for n in of_ranks), default=0)
    columns = {}
    for name, of_ranks in curves.items():
        of_rank: list[Keys] = [
            np.searchsorted(places, one) * width + nth
            for one, nth in zip(steps[name], nths[name], strict=True)
        ]
        columns[name] = _mean_over_ranks(of_rank, of_ranks)
    return places, width, columns


def _mean_over_ranks(keys: Sequence[Keys], curves: Sequence[Curve]) -> tuple[Keys, Floats]:
    """Each key once, in order, and the mean of the values that it has on the ranks."""
    all_keys = np.concatenate(keys)
    values = np.concatenate([curve.values for curve in curves])
    unique, index = np.unique(all_keys, return_inverse=True)
    sums = np.bincount(index, weights=values, minlength=len(unique))
    return unique, sums / np.bincount(index, minlength=len(unique))


def _union(of: Sequence[Keys]) -> Keys:
    """All numbers in ``of``, once each, in order: mostly they are the same ones again and again."""
    different: list[Keys] = []
    for one in of:
        if not any(np.array_equal(one, known) for known in different):
            different.append(one)
    return np.unique(np.concatenate(different)) if different else np.empty(0, np.int64)


def _nth(steps: Keys) -> Keys:
    """How often each step came before."""
    if np.all(steps[1:] > steps[:-1]):
        return np.zeros(len(steps), np.int64)
    order = np.argsort(steps, kind="stable")
    ordered = steps[order]
    nth = np.empty(len(steps), np.int64)
    nth[order] = np.arange(len(steps)) - np.searchsorted(ordered, ordered, side="left")
    return nth
