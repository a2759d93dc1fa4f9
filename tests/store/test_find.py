"""Which run a user means, and what is said when there is none."""

from __future__ import annotations

import pytest

from jupyter_train.errors import RunNotFound, StoreDamaged
from jupyter_train.store import RunSummary
from jupyter_train.store.find import find_run

DIGITS_NEW, MNIST, DIGITS_OLD, FIRST = (
    "20261122-160000-cccccc",
    "20261122-150000-bbbbbb",
    "20261121-150000-aaaaaa",
    "20261120-150000-999999",
)
RUNS = [
    RunSummary(run_id=DIGITS_NEW, name="digits", session="s2", notebook="a.ipynb"),
    RunSummary(run_id=MNIST, name="mnist-big", session="s1", notebook="b.ipynb"),
    RunSummary(run_id=DIGITS_OLD, name="digits", session="s1", notebook="b.ipynb"),
    RunSummary(run_id=FIRST, name="last", session="s0", notebook="c.ipynb"),
]


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        (DIGITS_OLD, DIGITS_OLD),
        ("digits", DIGITS_NEW),
        ("mnist-big", MNIST),
        ("20261121", DIGITS_OLD),
        ("20261122-15", MNIST),
        (" digits ", DIGITS_NEW),
        ("last", DIGITS_NEW),
    ],
)
def test_a_name_an_id_or_its_start(ref: str, found: str) -> None:
    assert find_run(ref, RUNS) == found


@pytest.mark.parametrize(
    ("session", "notebook", "found"),
    [
        ("s1", "a.ipynb", MNIST),
        ("s0", "", FIRST),
        ("new kernel", "b.ipynb", MNIST),
        ("new kernel", "new.ipynb", DIGITS_NEW),
        ("", "", DIGITS_NEW),
    ],
)
def test_last_is_of_this_kernel_else_of_this_notebook_else_of_the_store(
    session: str, notebook: str, found: str
) -> None:
    assert find_run("last", RUNS, session=session, notebook=notebook) == found


def message(ref: str, runs: list[RunSummary] = RUNS, problems: list[StoreDamaged] | None = None) -> str:
    with pytest.raises(RunNotFound) as caught:
        find_run(ref, runs, problems=problems or [])
    return str(caught.value)


@pytest.mark.parametrize(
    ("ref", "near"),
    [
        ("digit", DIGITS_NEW),
        ("Digits", DIGITS_NEW),
        ("mnist", MNIST),
        ("mnist-bog", MNIST),
        (MNIST[:-1] + "x", MNIST),
    ],
)
def test_a_near_miss_is_told_what_it_missed(ref: str, near: str) -> None:
    text = message(ref)
    assert text.startswith(f"no run {ref!r}. Did you mean ")
    assert near in text


def test_a_start_of_several_ids_asks_for_more() -> None:
    text = message("20261122")
    assert text.startswith("2 runs start with '20261122'")
    assert DIGITS_NEW in text
    assert MNIST in text


def test_where_nothing_is_near_the_newest_are_named() -> None:
    assert "The newest are 'digits' (20261122-160000-cccccc)" in message("zebra")
    assert "%train runs" in message("zebra")
    assert message("").startswith("no run ''. The newest are")


def test_an_empty_store_says_how_to_begin() -> None:
    assert message("last", []) == (
        "there are no runs in the store yet; a cell that begins with  %%train  makes the first."
    )
    assert message("x", []).startswith("no run 'x': the store has no runs yet")


def test_a_journal_that_could_not_be_read_is_named() -> None:
    assert message("x", [], [StoreDamaged("/j.sqlite cannot be read.")]).endswith(
        "Not looked at: /j.sqlite cannot be read."
    )
