"""The matrix: every row that data parallel is held to, from the modules that hold their cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.runtime.parallel.cells import SPLIT, WHOLE
from tests.runtime.parallel.loaders import ROWS as LOADERS
from tests.runtime.parallel.loaders import WHOLE_AT_FIRST
from tests.runtime.parallel.rows_data import CHANCE, FEEDS
from tests.runtime.parallel.rows_data import WHOLE as MORE_WHOLE
from tests.runtime.parallel.rows_models import MODELS
from tests.runtime.parallel.rows_steps import LOSSES, STEPS


class Does(StrEnum):
    """What becomes of a row's cell, in the word that stands in the table."""

    SPLIT = "split"
    WHOLE = "whole"  #: on every rank, with a remark
    CHANCE = "split, own random numbers"  #: weights are not those of one process, which draws others


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One cell, and what is asked of it."""

    name: str
    topic: str
    cell: str
    does: Does = Does.SPLIT
    tolerance: float = 1e-9  #: of weights, relative to the largest
    note: str = ""  #: what stands beside it in the table
    ranks: tuple[int, ...] = (2, 4)
    some_whole: bool = False  #: some of the batches that it trains on are not cut
    is_estimate: bool = False  #: the value of its loss is an estimate, which a remark says
    is_local: bool = False  #: some of what it keeps of its losses is that of the share


_ESTIMATED = {
    "a second loader read by next beside the first": "the loss shown is an estimate",
    "zip of two loaders, one over a stream": "the loss shown is an estimate",
    "zip with itertools.cycle": "the loss shown is an estimate",
    "loss: means over different numbers of samples": "the loss shown is an estimate",
    "two tasks with a loss each, and a third now and then": "the loss shown is an estimate",
    "one loss backward twice, two losses of one graph": "before retain_graph=True the loss stays that of the share",
}
_TOLERANCES = {
    "types that change in the middle": (1e-6, "goes through float32"),
    "autocast to bfloat16, with a scaler": (
        2e-2,
        "bfloat16 keeps 8 bits: sums of other shares round otherwise",
    ),
}
_ON_TWO = {
    "a loader nested in itself": "on two ranks; whole on four, where a batch has three samples",
    "batches of two zipped loaders that are left out under a condition": "on two ranks; whole on four, where a batch has three samples",
    "numbers without a dimension, of one sample": "on two ranks; refused where each has one sample",
}
_SOME_WHOLE = WHOLE_AT_FIRST | {
    "phases: one loop that trains, and validates by set_grad_enabled",
    "one function that trains or validates, by what it is given",
    "batches of two zipped loaders that are left out under a condition",
    "break, and a loop around next",
    "a validation loop in the middle of an epoch",
    "a training step in a function and a count before it",
    "a validation loop without eval or an outer no_grad",
    "a second loader read by next beside the first",
}


def _rows() -> Iterator[Row]:
    topics: list[tuple[str, Mapping[str, str], Does]] = [
        ("Models", MODELS, Does.SPLIT),
        ("Optimizers, schedulers and steps", STEPS, Does.SPLIT),
        ("Losses", LOSSES, Does.SPLIT),
        ("Data", FEEDS, Does.SPLIT),
        ("Loaders", LOADERS, Does.SPLIT),
        ("Loops", SPLIT, Does.SPLIT),
        ("Random numbers", CHANCE, Does.CHANCE),
        ("What is not split", {**WHOLE, **MORE_WHOLE}, Does.WHOLE),
    ]
    for topic, cells, does in topics:
        for name, cell in cells.items():
            tolerance, note = _TOLERANCES.get(name, (1e-9, ""))
            yield Row(
                name=name,
                topic=topic,
                cell=cell,
                does=does,
                tolerance=tolerance,
                note=note or _ON_TWO.get(name) or _ESTIMATED.get(name, ""),
                ranks=(2,) if name in _ON_TWO else (2, 4),
                some_whole=name in _SOME_WHOLE,
                is_estimate="estimate" in _ESTIMATED.get(name, ""),
                is_local="of the share" in _ESTIMATED.get(name, ""),
            )


ROWS = {row.name: row for row in _rows()}
CHUNK = 14  #: rows that share their processes, since starting those takes longest
CHUNKS = [list(ROWS.values())[start : start + CHUNK] for start in range(0, len(ROWS), CHUNK)]
CHUNK_OF = {row.name: number for number, chunk in enumerate(CHUNKS) for row in chunk}
