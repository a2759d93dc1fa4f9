"""Exceptions, classes and loaders behave on the other side as they do on this one."""

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


def test_classes_and_functions_travel_under_their_names_too(notebook: Notebook) -> None:
    """A pickle that the cell makes, of an instance, holds no more than these names."""
    notebook.cell(
        "def scale(x): return 2 * x\n"
        "class Thing:\n    def __init__(self): self.by = scale\n"
        "thing, other = Thing(), lambda: scale\n"
    )
    assert set(notebook.capture("print(thing)").names) == {"thing", "Thing", "scale"}


def test_a_loader_with_lasting_workers_comes_back_as_one_that_was_never_iterated(notebook: Notebook) -> None:
    notebook.cell("import torch\nfrom torch.utils.data import DataLoader")
    notebook.train(
        "loader = DataLoader(torch.arange(4), batch_size=2, num_workers=1, persistent_workers=True)\n"
        "first = [x.tolist() for x in loader]\n"
    )
    assert notebook["first"] == [[0, 1], [2, 3]]
    assert notebook["loader"]._iterator is None
