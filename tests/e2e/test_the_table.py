"""The table's own parts: they see what differs, and nothing else."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.e2e.table.cases import parse_cases
from tests.e2e.table.compare import STREAMS, Outcome, differences, same_text
from tests.e2e.table.describe import Description
from tests.e2e.table.page import EVERYWHERE, covers, read_page
from tests.e2e.table.shown import Output, frames_of_cells, outputs, without_view


def described(names: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    known = None
    if before is not None:
        walked = Description(before)
        for name in sorted(before):
            walked.add(name, before[name])
        known = walked.paths
    description = Description(names, known)
    for name in sorted(names):
        description.add(name, names[name])
    return description.leaves


def aspects(plain: dict[str, Any], trained: dict[str, Any]) -> list[str]:
    """What differs between two notebooks that hold nothing but these leaves."""
    sides = [Outcome(leaves=leaves, outputs=(), after=(), error=None) for leaves in (plain, trained)]
    return [one.aspect for one in differences(sides[0], sides[1], {})]


def shown(*texts: str | dict[str, Any]) -> Outcome:
    made = [
        Output(kind="stdout", text=t) if isinstance(t, str) else Output(kind="display", data=t) for t in texts
    ]
    return Outcome(leaves={}, outputs=tuple(made), after=(), error=None)


def test_the_same_values_do_not_differ() -> None:
    made = [{"a": [1, {"b": (2.0, "c")}], "t": torch.arange(3.0), "n": np.eye(2)} for _ in range(2)]
    assert aspects(described(made[0]), described(made[1])) == []


@pytest.mark.parametrize(
    ("one", "other", "aspect"),
    [
        (1, 2, "x"),
        (1, True, "x"),
        (1.0, 1.001, "x"),
        ([1, 2], (1, 2), "x"),
        ([1, [2]], [1, [3]], "x[1][0]"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "x: keys"),
        ({1, 2}, {1, 3}, "x: members"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), "x: form"),
        (torch.zeros(2), torch.tensor([0.0, 1.0]), "x: values"),
        (torch.zeros(2), torch.zeros(2, requires_grad=True), "x.requires_grad"),
        (np.zeros(2), np.zeros((2, 1)), "x: form"),
        (ValueError("a"), ValueError("b"), "x.args[0]"),
        (torch.nn.Linear(1, 1).train(), torch.nn.Linear(1, 1).eval(), "x.training"),
    ],
)
def test_a_value_that_differs_is_named_by_its_path(one: Any, other: Any, aspect: str) -> None:
    assert aspect in aspects(described({"x": one}), described({"x": other}))


def test_a_name_that_is_missing_is_named_once() -> None:
    assert aspects(described({"x": [1, 2]}), described({})) == ["x"]


def test_a_copy_is_told_from_an_alias() -> None:
    inner = [1]
    alias, copy = {"a": inner, "b": inner}, {"a": [1], "b": [1]}
    assert aspects(described(alias), described(copy)) == ["b"]


def test_an_object_of_before_is_told_from_a_new_one() -> None:
    old = [1]
    same, new = described({"x": old}, {"x": old}), described({"x": [1]}, {"x": old})
    assert aspects(same, new) == ["x: was"]


def test_a_view_is_told_from_a_copy() -> None:
    base = torch.zeros(4)
    view = described({"base": base, "part": base[:2]})
    assert aspects(view, described({"base": base, "part": base[:2].clone()})) == ["part: memory"]


def test_a_function_of_the_notebook_is_told_from_one_with_globals_of_its_own() -> None:
    own: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(): return 1", own)
    other = {"__name__": "__main__"}
    exec("def f(): return 1", other)
    ours = Description(own)
    ours.add("f", own["f"])
    theirs = Description(own)
    theirs.add("f", other["f"])
    assert "f" in aspects(ours.leaves, theirs.leaves)


def test_rounding_is_no_difference_and_a_digit_is() -> None:
    assert same_text("loss 0.12345678", "loss 0.12345679")
    assert same_text("loss 0.1234", "loss 0.1235"), "the last digit that is printed may round either way"
    assert not same_text("loss 0.1234", "loss 0.1237")
    assert not same_text("epoch 1", "epoch 2")
    assert not same_text("epoch 1", "step 1")


def test_order_and_kind_of_outputs_count() -> None:
    plain = shown("a\n", {"text/plain": "1"}, "b\n")
    assert not differences(plain, plain, {})
    assert differences(plain, shown({"text/plain": "1"}, "a\nb\n"), {})
    assert differences(plain, shown("a\n", {"text/plain": "1", "text/html": "1"}, "b\n"), {})
    assert differences(plain, shown("a\n", {"text/plain": "2"}, "b\n"), {})


def test_the_two_streams_have_no_order_among_each_other() -> None:
    out, err = Output(kind="stdout", text="a"), Output(kind="stderr", text="b")
    one = Outcome(leaves={}, outputs=(out, err, out), after=(), error=None)
    other = Outcome(leaves={}, outputs=(Output(kind="stdout", text="aa"), err), after=(), error=None)
    rules = {STREAMS: EVERYWHERE[STREAMS]}
    assert not differences(one, other, rules)
    assert differences(one, other, {})
    assert differences(one, replace(one, outputs=(out, err)), rules)


def test_pictures_differ_by_their_size() -> None:
    def picture(width: int) -> dict[str, str]:
        return {"image/png": base64.b64encode(bytes(16) + struct.pack(">II", width, 2)).decode()}

    assert not differences(shown(picture(3)), shown(picture(3)), {})
    assert differences(shown(picture(3)), shown(picture(4)), {})


def test_errors_differ_by_type_message_and_line() -> None:
    def failed(name: str, text: str, line: int) -> Outcome:
        return Outcome(leaves={}, outputs=(), after=(), error=(name, text), frames=((0, line),))

    plain = failed("KeyError", "'a'", 3)
    assert not differences(plain, failed("KeyError", "'a'", 3), {})
    for other in (failed("KeyError", "'b'", 3), failed("IndexError", "'a'", 3), shown()):
        assert [one.aspect for one in differences(plain, other, {})] == ["error"]
    assert [one.aspect for one in differences(plain, failed("KeyError", "'a'", 4), {})] == ["error line"]


def test_updates_clears_and_carriage_returns_are_carried_out() -> None:
    def display(text: str, display_id: str | None = None) -> dict[str, Any]:
        return {"data": {"text/plain": text}, "transient": {"display_id": display_id}}

    def text(of: str) -> dict[str, Any]:
        return {"name": "stdout", "text": of}

    made = outputs(
        [
            ("stream", text("gone")),
            ("clear_output", {"wait": True}),
            ("stream", text("1 %\r")),
            ("stream", text("2 %\rdone\n")),
            ("display_data", display("old", "x")),
            ("update_display_data", display("new", "x")),
        ]
    )
    assert [(one.kind, one.text, one.data) for one in made] == [
        ("stdout", "done\n", None),
        ("display", "", {"text/plain": "new"}),
    ]
    with_view = [
        ("display_data", display("view", "v")),
        ("stream", text("a")),
        ("display_data", display("b")),
    ]
    assert [kind for kind, _ in without_view(with_view)] == ["stream", "display_data"]


def test_frames_are_told_by_cell_and_line() -> None:
    assert frames_of_cells("Cell In[4], line 2\n… Cell In[3], line 7, in f", 4) == [(0, 2), (-1, 7)]


def test_cases_are_read_part_by_part() -> None:
    one, other = parse_cases(
        "# what it is\n# %% case: first\n# %% needs: pandas\n# %% file: a/b.py\nx = 1\n# %% before\ny = 1\n\n"
        "# %% cell\nz = 1\n# %% case: second\n# %% cell\npass\n"
    )
    assert (one.name, one.needs, one.files, one.before) == (
        "first",
        ("pandas",),
        {"a/b.py": "x = 1\n"},
        "y = 1\n",
    )
    assert other.cell == "pass\n"
    with pytest.raises(ValueError, match="no cell"):
        parse_cases("# %% case: first\n# %% before\nx = 1\n")


def test_the_page_is_read_row_by_row() -> None:
    page = read_page(
        "| what | instead | seen |\n|---|---|---|\n"
        "| `x | y` | z | `a cell`: `w.grad`, `b.*`; `other` on 2 ranks: `error` |\n"
        "| file | t | everywhere: `addresses` |\n| grad | t | any cell: `*.grad` |\n"
    )
    assert page.allows("w.grad")
    assert not page.allows("w.grads")
    assert page.everywhere == ("addresses",)
    assert page.aspects("a cell", 1) == {"w.grad", "b.*"}
    assert page.aspects("other", 1) == set()
    assert page.aspects("other", 2) == {"error"}


def test_what_the_page_lists_covers_just_that() -> None:
    assert covers("w.grad", "w.grad")
    assert not covers("w.grad", "w.grads")
    assert covers("b.*", "b.grad: form")
    assert covers("x[0]", "x[0]")
    assert not covers("x[0]", "x0")


def test_rules_for_all_cells_change_what_they_say() -> None:
    rule = EVERYWHERE["file of the cell"]
    assert rule("/tmp/ipykernel_12/34.py:3: W") == rule("<train a b>:3: W") == "<cell>:3: W"
    assert EVERYWHERE["addresses"]("<f at 0x7f00aa11bb22>") == "<f at 0x…>"
