"""Rows of the matrix on real ranks, beside plain Python: what the tests claim of them, and the table in the documentation.

``python -m tests.runtime.parallel.matrix`` runs all rows in float64 and
float32 and writes the table into docs/data-parallel.md; with names or parts of
names it runs those rows and prints their figures, with ``--missing`` those
that the table does not have as they are now.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.runtime.parallel.loaders import TWICE
from tests.runtime.parallel.ranks import Outcome, Way, difference, prelude, together
from tests.runtime.parallel.rows import CHUNKS, ROWS, Does, Row

PAGE = Path(__file__).parents[3] / "docs" / "data-parallel.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
KEPT = ("drawn", "seen")


class PlainPython:
    """A process of plain Python that runs cells; see plain.py."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("plain.py")
        self._process = subprocess.Popen(
            [sys.executable, "-E", "-s", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )

    def run(self, cells: Sequence[str], *, single: bool = False) -> list[Outcome]:
        """What each cell comes to."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        sources = [(prelude(single=single) + textwrap.dedent(cell), KEPT) for cell in cells]
        pickle.dump(sources, self._process.stdin)
        self._process.stdin.flush()
        outcomes = []
        for _ in cells:
            weights, buffers, out, names, error = pickle.load(self._process.stdout)
            assert not error, error
            outcomes.append(Outcome(weights=weights, buffers=buffers, out=out, names=names))
        return outcomes

    def close(self) -> None:
        """End it; twice does nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)


@contextmanager
def plain_python() -> Iterator[PlainPython]:
    """Plain Python, for a while."""
    one = PlainPython()
    try:
        yield one
    finally:
        one.close()


def on_ranks(rows: Sequence[Row], ranks: int, *, single: bool = False) -> list[list[Outcome]]:
    """Outcomes of the rows, by row and rank."""
    way = Way(ranks=ranks, keep=KEPT, single=single, limit_s=40)
    by_rank = together([row.cell for row in rows], way)
    return [[outcomes[number] for outcomes in by_rank] for number in range(len(rows))]


def furthest(wanted: Outcome, outcomes: Sequence[Outcome]) -> float:
    """The largest difference of any rank's weights from those of one process, relative to the largest weight."""
    return max(difference(wanted.weights, outcome.weights) for outcome in outcomes)


# -- who saw which sample


@dataclass(frozen=True, slots=True)
class Dealt:
    """How training batches were dealt out."""

    split: int
    whole: int


def dealt(wanted: Outcome, outcomes: Sequence[Outcome]) -> Dealt:
    """Compare the indices that ranks asked for with those of one process, batch by batch.

    Ranks have contiguous shares of a batch in their order; where it has fewer
    samples than there are ranks, those without one take its first.

    Raises:
        AssertionError: a sample is missing, on two ranks or not in its batch.
    """
    split = whole = 0
    batches = wanted.names["drawn"]
    for outcome in outcomes:
        assert len(outcome.names["drawn"]) == len(batches), "as many batches as in one process"
    for number, batch in enumerate(batches):
        shares = [outcome.names["drawn"][number] for outcome in outcomes]
        if len(batch) == 1:
            assert all(share == batch for share in shares)
        elif all(share == batch for share in shares):
            whole += 1
        else:
            filled = shares[: len(batch)]
            assert [k for share in filled for k in share] == batch, "each sample once, on one rank, in order"
            assert all(share == batch[:1] for share in shares[len(batch) :])
            if len(batch) >= len(shares):
                sizes = list(map(len, shares))
                assert max(sizes) - min(sizes) <= 2, "shares are alike"
            split += 1
    return Dealt(split, whole)


def check_seen(row: Row, wanted: Outcome, outcomes: Sequence[Outcome]) -> None:
    """Of cells that keep the numbers of their samples by epoch: each as often as in one process, on one rank.

    Raises:
        AssertionError: it is not so.
    """
    for epoch, ids in enumerate(wanted.names["seen"]):
        every = Counter(i for outcome in outcomes for i in outcome.names["seen"][epoch])
        if len(outcomes) in TWICE.get(row.name, ()):
            assert set(every) == set(ids)
            assert sum(every.values()) <= len(ids) + 2 * len(outcomes)
        else:
            assert every == Counter(ids), "each sample as often as in one process, on one rank"
        assert not ids or all(outcome.names["seen"][epoch] for outcome in outcomes)


# -- the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Largest differences of weights, on whatever number of ranks."""

    double: float
    single: float


def figures(rows: Sequence[Row], python: PlainPython) -> dict[str, Figures]:
    """Run the rows on 2 and 4 ranks in both precisions."""
    found: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
    for single, by_name in found.items():
        wanted = python.run([row.cell for row in rows], single=single)
        for ranks in (2, 4):
            asked = [(row, one) for row, one in zip(rows, wanted, strict=True) if ranks in row.ranks]
            ran = on_ranks([row for row, _ in asked], ranks, single=single)
            for (row, one), outcomes in zip(asked, ran, strict=True):
                errors = {outcome.error for outcome in outcomes} - {""}
                assert not errors, f"{row.name}, {ranks} ranks: {errors}"
                by_name.setdefault(row.name, []).append(furthest(one, outcomes))
    return {
        row.name: Figures(double=max(found[False][row.name]), single=max(found[True][row.name]))
        for row in rows
    }


def heading(row: Row) -> str:
    """The row's beginning in the table: what does not depend on a measurement."""
    happens = f"{row.does}: {row.note}" if row.note else str(row.does)
    return f"| `{row.name}` | {happens} |"


def table(measured: dict[str, Figures]) -> str:
    """The table as it stands in the documentation."""
    lines = []
    topic = ""
    for row in ROWS.values():
        if row.topic != topic:
            topic = row.topic
            lines += [
                "",
                f"**{topic}**",
                "",
                "| Row | What happens | float64 | float32 |",
                "|---|---|---|---|",
            ]
        one = measured[row.name]
        shown = ["–", "–"] if row.does is Does.CHANCE else [_shown(one.double), _shown(one.single)]
        lines.append(f"{heading(row)} {shown[0]} | {shown[1]} |")
    return "\n".join([BEGIN, *lines, "", END])


def _shown(figure: float) -> str:
    return "0" if figure == 0 else "n. a." if np.isnan(figure) else f"{figure:.0e}"


def rows_in(page: str) -> list[str]:
    """The headings of the rows that stand in ``page``."""
    inside = page[page.index(BEGIN) : page.index(END)]
    return [line.rsplit("|", 3)[0] + "|" for line in inside.splitlines() if line.startswith("| `")]


def measured_in(page: str) -> dict[str, Figures]:
    """The figures of the rows that stand in ``page`` as they are now."""
    now = {heading(row): row for row in ROWS.values()}
    found = {}
    for line in page[page.index(BEGIN) : page.index(END)].splitlines():
        parts = line.rsplit("|", 3)
        row = now.get(parts[0] + "|")
        if row is not None:
            double, single = (float(part.strip().replace("–", "nan")) for part in parts[1:3])
            found[row.name] = Figures(double=double, single=single)
    return found


def main(wanted: Sequence[str]) -> None:
    """Measure and write, or print."""
    page = PAGE.read_text()
    missing = list(wanted) == ["--missing"]
    measured = measured_in(page) if missing else {}
    with plain_python() as python:
        for chunk in CHUNKS:
            rows = [row for row in chunk if missing or not wanted or any(part in row.name for part in wanted)]
            rows = [row for row in rows if row.name not in measured]
            if rows:
                measured |= figures(rows, python)
                for row in rows:
                    one = measured[row.name]
                    print(
                        f"{row.name}: float64 {_shown(one.double)}, float32 {_shown(one.single)}", flush=True
                    )
    if missing or not wanted:
        before, after = page[: page.index(BEGIN)], page[page.index(END) + len(END) :]
        PAGE.write_text(before + table(measured) + after)


if __name__ == "__main__":
    import tests.runtime.parallel.conftest  # noqa: F401  # imports what ranks run on, before they are forked

    main(sys.argv[1:])
