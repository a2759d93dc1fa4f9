"""Runs a cell undisturbed, and killed after a number of steps and taken up again from its newest checkpoint."""

from __future__ import annotations

import contextlib
import json
import linecache
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jupyter_train.home import run_folder
from jupyter_train.record.checkpoint import ResumePoint
from tests.runtime.parallel.ranks import CELL, Outcome, Way, together

RUN = "20261123-000000-abcdef"
TIMES = ("step_time_s", "samples_per_s")
Curves = dict[str, list[tuple[int, float]]]


class Killed(BaseException):
    """In the place of a signal: what the cell had is gone."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A cell, and after how many optimizer steps it is killed."""

    cell: str
    kills: tuple[int, ...]
    every_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Story:
    """The outcome of one rank, and its curves over all attempts."""

    outcome: Outcome
    curves: Curves
    points: tuple[tuple[int | None, int, int], ...] = ()  #: epoch, batch and step that attempts went on from

    def same_as(self, other: Story) -> str:
        """What differs; "" where nothing does."""
        one, two = self.outcome, other.outcome
        if one.error or two.error:
            return one.error or two.error
        for what in ("weights", "buffers"):
            mine, theirs = getattr(one, what), getattr(two, what)
            if len(mine) != len(theirs) or not all(map(np.array_equal, mine, theirs)):
                return f"{what} differ"
        if repr(one.out) != repr(two.out):
            return f"out: {one.out!r} != {two.out!r}"
        if self.curves != other.curves:
            names = [n for n in {*self.curves, *other.curves} if self.curves.get(n) != other.curves.get(n)]
            return f"curves differ: {[(n, self.curves.get(n), other.curves.get(n)) for n in names[:2]]}"
        return ""


def stories(cases: Mapping[str, Case], way: Way) -> dict[str, tuple[list[Story], list[Story]]]:
    """Each case undisturbed, and killed and taken up again, by rank. Two starts of processes for all."""
    with tempfile.TemporaryDirectory() as folder:
        cells, places = [], []
        for name, case in cases.items():
            home = Path(folder, str(len(places)))
            for attempt, kill in enumerate((None, *case.kills, None)):
                told = {
                    "home": str(home / ("undisturbed" if not attempt else "killed")),
                    "attempt": max(1, attempt),
                    "kill": kill,
                    "every_s": case.every_s,
                }
                cells.append(f"#: {json.dumps(told)}\n{case.cell}")
                places.append((name, attempt))
        import dataclasses

        outcomes = together(cells, dataclasses.replace(way, within=_within, keep=("out",)))
    found: dict[str, tuple[list[Story], list[Story]]] = {name: ([], []) for name in cases}
    for of_rank in outcomes:
        for name in cases:
            mine = [one for one, (whose, _) in zip(of_rank, places, strict=True) if whose == name]
            found[name][0].append(_story(mine[:1]))
            found[name][1].append(_story(mine[1:]))
    return found


def _story(attempts: Sequence[Outcome]) -> Story:
    curves: Curves = {}
    points = []
    for number, outcome in enumerate(attempts):
        seen = outcome.seen or {}
        if number and seen.get("point"):
            marks = (attempts[number - 1].seen or {})["marks"]
            points.append((seen["point"]["epoch"], seen["point"]["batch"], seen["point"]["step"]))
            marks = _marks_of(attempts[:number], seen["point"]["number"])
            curves = {name: values[: marks.get(name, 0)] for name, values in curves.items()}
        else:
            curves = {}
        lengths = {name: len(values) for name, values in curves.items()}
        for name, values in outcome.metrics.items():
            if name not in TIMES:
                curves.setdefault(name, []).extend(values)
        seen["whole"] = {
            at: {name: lengths.get(name, 0) + count for name, count in mark.items()}
            | {name: count for name, count in lengths.items() if name not in mark}
            for at, mark in seen.get("marks", {}).items()
        }
    return Story(
        outcome=attempts[-1],
        curves={name: values for name, values in curves.items() if values},
        points=tuple(points),
    )


def _marks_of(attempts: Sequence[Outcome], number: int) -> dict[str, int]:
    for outcome in reversed(attempts):
        if number in (outcome.seen or {}).get("whole", {}):
            return dict(outcome.seen["whole"][number])
    raise AssertionError(f"nobody began checkpoint {number}")


@contextlib.contextmanager
def _within(parallel: Any, observer: Any) -> Iterator[dict[str, Any]]:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from jupyter_train.runtime.checkpoint.checkpoints import Checkpoints, Rhythm
    from jupyter_train.runtime.checkpoint.keeping import Keeping
    from jupyter_train.runtime.checkpoint.reader import read_point

    told = next(json.loads(line[2:]) for line in linecache.cache[CELL][2] if line.startswith("#: "))  # type: ignore[misc]
    np.random.seed(11)
    random.seed(12)
    recorder = observer.recorder
    seen: dict[str, Any] = {"marks": {}, "point": None, "parts": []}
    home = Path(told["home"])
    folder = run_folder(RUN, home)
    folder.mkdir(parents=True, exist_ok=True)
    if parallel.world_size > 1:
        parallel._the_groups().exchange("the attempt before has written all")
    point = _newest(folder, parallel.world_size) if told["attempt"] > 1 else None
    saved = None
    if point is not None:
        saved = read_point(point, parallel.rank, home)
        point = ResumePoint(
            run_id=RUN, attempt=point.attempt, number=point.number, step=saved.step, epoch=saved.epoch,
            batch=saved.batch, files=point.files,
        )  # fmt: skip
        seen["point"] = {
            "number": point.number,
            "epoch": saved.epoch,
            "batch": saved.batch,
            "step": saved.step,
        }
        recorder.withhold()

    def tell(payload: Mapping[str, Any]) -> None:
        if payload.get("begun"):
            seen["marks"][payload["number"]] = {name: len(v) for name, v in recorder.metrics.items()}
        else:
            seen["parts"].append(dict(payload))

    keeping = Keeping(
        folder=folder, attempt=told["attempt"], rank=parallel.rank, world_size=parallel.world_size,
        worker="tcp://127.0.0.1:1", tell=tell, remark=recorder.remark,
    )  # fmt: skip
    checkpoints = Checkpoints(
        engine=parallel.engine, keeping=keeping, rhythm=Rhythm(every_s=told["every_s"]),
        remark=recorder.remark, newest=recorder.newest, saved=saved, point=point,
        number=point.number if point is not None else 0, arrived=lambda: recorder.go_on(keep=False),
    )  # fmt: skip
    parallel.keep_when(checkpoints.is_due, checkpoints.agreed)
    train = sys.modules["__main__"].train  # type: ignore[attr-defined]
    train.epochs = checkpoints.epochs
    train.checkpoint = lambda keep_last=None, best=None, **state: checkpoints.checkpoint(
        keep_last, best, state
    )

    def log(step: int | None = None, **metrics: Any) -> None:
        for name, value in metrics.items():
            recorder.metric(name, value, observer.step if step is None else step)

    train.log = log

    def after_step(*_: Any) -> None:
        if told["kill"] is not None and observer.step >= told["kill"]:
            raise Killed

    hook = register_optimizer_step_post_hook(after_step)
    try:
        yield seen
    finally:
        hook.remove()
        keeping.close(20.0)


def _newest(folder: Path, ranks: int) -> ResumePoint | None:
    """The newest checkpoint that all ranks have written."""
    found: dict[tuple[int, int], dict[int, str]] = {}
    for path in folder.glob("checkpoint-*.pt"):
        attempt, rest = path.name.removeprefix("checkpoint-").removesuffix(".pt").split("-")
        number, _, rank = rest.partition(".")
        found.setdefault((int(number), int(attempt)), {})[int(rank or 0)] = path.name
    whole = sorted(key for key, files in found.items() if len(files) == ranks)
    if not whole:
        return None
    number, attempt = whole[-1]
    files = found[number, attempt]
    return ResumePoint(
        run_id=RUN, attempt=attempt, number=number, step=0, files=tuple(files[rank] for rank in range(ranks))
    )
