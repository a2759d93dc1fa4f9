"""What earlier runs found is used by runs of the same program, and by no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from jupyter_train.notebook.known import Program, known_whole, program
from jupyter_train.notebook.submit import Work
from jupyter_train.record import WholeLoop

LOOP = WholeLoop(line=4, why="line 6: the loss compares samples", after_s=2.0)


def loss_of(cell: str) -> Any:
    """A function as a cell of that file defines it."""
    names: dict[str, Any] = {}
    exec(compile("def loss(z): return z @ z.T", cell, "exec"), names)
    return names["loss"]


def made(ranks: int = 2, source: str = "fit()", **names: Any) -> Program:
    return program(Work(source=source, first_line=2, namespace=names, name="x"), ranks, names)


def run(of: Program | None, *whole: WholeLoop) -> Any:
    return SimpleNamespace(program=of, known=SimpleNamespace(whole=whole))


def test_the_next_run_of_the_same_text_knows() -> None:
    (known,) = known_whole(made(x=1), [run(None), run(made(x=2), LOOP)])
    assert (known.line, known.after_s) == (4, 0.0), "it was not found by this run"


def test_names_that_the_first_run_bound_make_no_difference() -> None:
    assert known_whole(made(x=1, loss=0.3), [run(made(x=1), LOOP)])


def test_the_newest_run_counts() -> None:
    assert known_whole(made(), [run(made(), LOOP), run(made())]) == ()


def test_another_text_number_of_ranks_or_function_is_tried_anew() -> None:
    before = [run(made(loss=loss_of("cell 1")), LOOP)]
    assert known_whole(made(loss=loss_of("cell 1")), before)
    assert not known_whole(made(loss=loss_of("cell 2")), before)
    assert not known_whole(made(ranks=4, loss=loss_of("cell 1")), before)
    assert not known_whole(made(source="fit(2)", loss=loss_of("cell 1")), before)
