"""Exceptions and data classes that a cell makes are in the notebook what they would be there."""

from __future__ import annotations

import dataclasses

from tests.transport.conftest import Notebook


def test_an_exception_is_not_constructed_twice(notebook: Notebook) -> None:
    notebook.cell(
        "class Odd(ValueError):\n"
        "    def __init__(self, n):\n"
        "        super().__init__(f'{n} is odd')\n"
        "        self.n = n\n"
        "before = Odd(1)\n"
    )
    notebook.train("inside = str(before), before.n\nafter = Odd(3)")
    assert notebook["inside"] == ("1 is odd", 1)
    assert (str(notebook["after"]), notebook["after"].n) == ("3 is odd", 3)
    assert type(notebook["after"]) is notebook["Odd"]


def test_an_exception_whose_constructor_wants_more_than_its_args_travels(notebook: Notebook) -> None:
    notebook.cell(
        "class Bad(Exception):\n"
        "    def __init__(self, *, row, column):\n"
        "        super().__init__(f'row {row}')\n"
        "        self.column = column\n"
    )
    notebook.train("kept = Bad(row=3, column='age')")
    assert (str(notebook["kept"]), notebook["kept"].column) == ("row 3", "age")


def test_an_exception_keeps_what_its_base_in_c_holds(notebook: Notebook) -> None:
    notebook.cell(
        "class Enough(StopIteration):\n    def __init__(self, n):\n        super().__init__(n * 2)\n"
        "class Away(OSError):\n    pass\n"
    )
    notebook.train("enough = Enough(4)\naway = Away(2, 'gone', 'file.txt')")
    assert notebook["enough"].value == 8
    assert (notebook["away"].errno, notebook["away"].filename) == (2, "file.txt")


def test_a_data_class_of_the_cell_can_be_inherited_from(notebook: Notebook) -> None:
    notebook.cell("from dataclasses import dataclass, field, fields, KW_ONLY, replace")
    notebook.train(
        "@dataclass\nclass Base:\n    a: int\n    b: list = field(default_factory=list)\n    _: KW_ONLY\n    c: int = 3\n"
    )
    assert notebook["Base"].__dataclass_fields__["a"].default is dataclasses.MISSING
    notebook.cell(
        "@dataclass\nclass More(Base):\n    d: int = field(default=1, kw_only=True)\nmade = More(5), replace(Base(1), a=2)"
    )
    assert notebook["made"][0].b == []
    assert notebook["made"][1].a == 2
