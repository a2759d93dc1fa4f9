"""Each cell of the table by ``%%train`` on 1 and 2 ranks leaves what it leaves when it runs plainly.

What does not is listed in docs/cell.md, and read from there. The cells are in ``tests/e2e/cells``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.table.cases import Case, read_cases
from tests.e2e.table.columns import Table, open_table
from tests.e2e.table.page import EVERYWHERE, Page, covers, read_page

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CASES = read_cases()


@pytest.fixture(scope="module")
def page() -> Page:
    return read_page()


@pytest.fixture(scope="module")
def table(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    with open_table(shared_home, tmp_path_factory.mktemp("table")) as opened:
        yield opened


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_cell_leaves_what_it_leaves_when_it_runs_here(
    case: Case, ranks: int, table: Table, page: Page
) -> None:
    if lacking := case.lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    found = [one for one in table.differences(case, ranks, page) if not page.allows(one.aspect)]
    listed = page.aspects(case.name, ranks)
    unlisted = [one for one in found if not any(covers(aspect, one.aspect) for aspect in listed)]
    if unlisted:
        pytest.fail("docs/cell.md does not list:\n" + "\n".join(map(str, unlisted)), pytrace=False)
    vain = {aspect for aspect in listed if not any(covers(aspect, one.aspect) for one in found)}
    if vain:
        pytest.fail(f"docs/cell.md lists what is no exception any more: {sorted(vain)}", pytrace=False)


def test_what_may_differ_after_any_cell_does_after_some(table: Table, page: Page) -> None:
    if len(table.ran) < 2 * len([case for case in CASES if not case.lacking]):
        pytest.skip("not all of the table ran")
    assert table.met == set(page.any_cell)


def test_the_page_names_cells_and_rules_that_there_are(page: Page) -> None:
    named = {one.case for one in page.exceptions}
    assert named <= {case.name for case in CASES}
    assert set(page.everywhere) == EVERYWHERE.keys()


def test_the_table_has_cells_enough() -> None:
    assert len(CASES) >= 60
