"""What two runs have differently: values, settings, code. Pure.

Whatever the runs wrote or were called is text; whoever shows it escapes it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jupyter_train.notebook.frames import mean_curves
from jupyter_train.record import RunSpec, RunView

_MISSING = object()
_MORE_IS_BETTER = re.compile(
    r"acc|auc|f1|score|precision|recall|iou|dice|bleu|rouge|(^|[^a-z])(map|r2|psnr|ssim|reward|return|samples_per_s)($|[^a-z])"
)
_NO_BEST = re.compile(r"(^|/)lr($|[/ ])|epoch|step_time_s")
_SETTINGS = (
    "ranks", "strategy", "batch", "sync_batchnorm", "seed", "timeout_s", "retries", "checkpoint_every_s", "cluster",
)  # fmt: skip
_OF_RECORD = ("git", "versions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best value of a metric; its name says whether that is the largest."""

    value: float
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """One metric of the two runs; None where a run does not have it."""

    name: str
    last: tuple[float | None, float | None]
    best: tuple[Best | None, Best | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A setting that is not the same; "" where a run does not have it."""

    name: str
    values: tuple[str, str]


def compared_values(views: tuple[RunView, RunView]) -> list[Values]:
    """The metrics, those of both runs first."""
    means = [mean_curves(view) for view in views]
    names = sorted({**means[0], **means[1]}, key=lambda name: sum(name in one for one in means), reverse=True)
    found = []
    for name in names:
        last: list[float | None] = []
        best: list[Best | None] = []
        for one in means:
            steps, values = one.get(name, (np.empty(0, np.int64), np.empty(0)))
            last.append(float(values[-1]) if len(values) else None)
            best.append(best_of(name, steps, values))
        found.append(Values(name=name, last=(last[0], last[1]), best=(best[0], best[1])))
    return found


def best_of(name: str, steps: Any, values: Any) -> Best | None:
    """The best of ``values``; None where there is none, or where a metric of that name has no better and worse."""
    finite = np.isfinite(values)
    if _NO_BEST.search(name.lower()) or not finite.any():
        return None
    more = _MORE_IS_BETTER.search(name.lower()) is not None
    at = int(
        np.argmax(np.where(finite, values, -np.inf)) if more else np.argmin(np.where(finite, values, np.inf))
    )
    return Best(value=float(values[at]), step=int(steps[at]))


def differing_settings(specs: tuple[RunSpec | None, RunSpec | None]) -> list[Difference]:
    """What the two runs were given differently, and what is on record of where they were started."""
    both = [dict(_settings(spec)) if spec is not None else {} for spec in specs]
    found = []
    for name in {**both[0], **both[1]}:
        left, right = (one.get(name, _MISSING) for one in both)
        if left != right:
            values = tuple("" if value is _MISSING else str(value) for value in (left, right))
            found.append(Difference(name=name, values=(values[0], values[1])))
    return found


def _settings(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    for name, value in spec.params.items():
        yield f"params.{name}", value
    for name in _SETTINGS:
        yield name, getattr(spec, name)
    if spec.resume is not None:
        yield "resume", f"{spec.resume.run_id}@{spec.resume.step}"
    for name, text in spec.tags.items():
        yield f"tags.{name}", text
    for group in _OF_RECORD:
        of_group = spec.provenance.get(group)
        for name, value in of_group.items() if isinstance(of_group, Mapping) else ():
            yield f"{group}.{name}", value


def differing_code(specs: tuple[RunSpec | None, RunSpec | None], names: tuple[str, str]) -> list[str]:
    """Lines of a unified diff: of the cells, then of functions and classes that both took along."""
    cells = [spec.source if spec is not None else "" for spec in specs]
    lines = _diff(cells[0], cells[1], "cell", names)
    taken = [_definitions(spec) for spec in specs]
    for name in sorted({**taken[0], **taken[1]}):
        lines += _diff(taken[0].get(name, ""), taken[1].get(name, ""), name, names)
    return lines


def _definitions(spec: RunSpec | None) -> dict[str, str]:
    found = spec.provenance.get("definitions") if spec is not None else None
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


def _diff(left: str, right: str, what: str, names: tuple[str, str]) -> list[str]:
    return list(
        difflib.unified_diff(
            left.splitlines(),
            right.splitlines(),
            f"{what} of {names[0]}",
            f"{what} of {names[1]}",
            lineterm="",
        )
    )
