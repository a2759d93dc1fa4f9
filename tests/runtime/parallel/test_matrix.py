"""Each row of the matrix on two and four ranks, against the plain script run by plain Python without this package."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import pytest

from tests.runtime.parallel import matrix
from tests.runtime.parallel.matrix import PlainPython
from tests.runtime.parallel.ranks import Outcome
from tests.runtime.parallel.rows import CHUNK_OF, CHUNKS, ROWS, Does


@pytest.fixture(scope="session")
def plain_python() -> Iterator[PlainPython]:
    with matrix.plain_python() as python:
        yield python


@functools.cache
def one_process(python: PlainPython, number: int) -> dict[str, Outcome]:
    """What plain Python comes to with the rows of a chunk."""
    rows = CHUNKS[number]
    return {row.name: one for row, one in zip(rows, python.run([row.cell for row in rows]), strict=True)}


@functools.cache
def on(ranks: int, number: int) -> dict[str, list[Outcome]]:
    """The same rows on ranks."""
    rows = [row for row in CHUNKS[number] if ranks in row.ranks]
    return {row.name: many for row, many in zip(rows, matrix.on_ranks(rows, ranks), strict=True)}


@pytest.mark.parametrize(
    ("ranks", "name"), [(ranks, row.name) for ranks in (2, 4) for row in ROWS.values() if ranks in row.ranks]
)
def test_a_row_is_like_one_process(ranks: int, name: str, plain_python: PlainPython) -> None:
    row, number = ROWS[name], CHUNK_OF[name]
    wanted, outcomes = one_process(plain_python, number)[name], on(ranks, number)[name]
    assert [outcome.error for outcome in outcomes] == [""] * ranks
    if row.does is Does.CHANCE:
        assert matrix.furthest(outcomes[0], outcomes) == 0.0
        assert all(outcome.out == outcomes[0].out for outcome in outcomes), "outside the loop all draw alike"
        assert 0.0 < matrix.furthest(wanted, outcomes) < 1.0, "other weights, of the same size"
    else:
        assert matrix.furthest(wanted, outcomes) <= row.tolerance
        for outcome in outcomes:
            for buffer, other in zip(wanted.buffers, outcome.buffers, strict=True):
                np.testing.assert_allclose(other, buffer, rtol=row.tolerance)
            if wanted.out is not None and not (row.is_estimate or row.is_local):
                assert outcome.out == pytest.approx(wanted.out, rel=max(1e-9, row.tolerance), nan_ok=True)
    if row.is_estimate:
        assert all(outcome.out == outcomes[0].out for outcome in outcomes)
        assert sum("an estimate" in remark for remark in outcomes[0].remarks) == 1
    dealt = matrix.dealt(wanted, outcomes)
    if row.does is Does.WHOLE:
        assert dealt.split == 0
        assert any("line " in remark and "whole" in remark for remark in outcomes[0].remarks)
    elif not row.some_whole:
        assert dealt.whole == 0
    if wanted.names["seen"] is not None:
        matrix.check_seen(row, wanted, outcomes)
    assert not any(outcome.remarks for outcome in outcomes[1:]), "one rank speaks for all"
    if row.topic == "Loaders" and not row.some_whole:
        said = [remark for remark in outcomes[0].remarks if not remark.startswith("counts of a loop")]
        assert len(said) == row.is_estimate, "nothing else is said where all is as written"


def test_the_table_in_the_documentation_has_the_rows_that_there_are() -> None:
    page = matrix.PAGE.read_text()
    assert matrix.rows_in(page) == [matrix.heading(row) for row in ROWS.values()]
