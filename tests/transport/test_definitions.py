"""The source of what was captured, as a notebook has it: cells in linecache, classes in a module without a file."""

from __future__ import annotations

import linecache
from types import FunctionType
from typing import Any

import pytest

from jupyter_train.transport.capture import capture
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.definitions import (
    MOST_CHARACTERS,
    MOST_IN_ALL,
    definition_texts,
    module_texts,
)
from jupyter_train.transport.localmodules import LocalModule

CELL = """\
import functools

def loud(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)
    return inner

@loud
def scale(x, by=2):
    return x * by

class Net:
    "A model."
    size = 3

    def __init__(self):
        self.rate = scale(1)

    class Part:
        @property
        def name(self):
            return "part"

    @staticmethod
    def helper():
        return [lambda x: x + 1]

net = Net()
"""


@pytest.fixture
def notebook() -> dict[str, Any]:
    return cell(CELL, "<cell 1>")


def cell(source: str, file: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)
    return namespace


def texts(source: str, namespace: dict[str, Any], content: ContentStore) -> dict[str, str]:
    return definition_texts(capture(source, namespace, content=content).definitions)


@pytest.fixture
def content(tmp_path: Any) -> ContentStore:
    return ContentStore(tmp_path / "content")


def test_a_class_that_only_an_object_leads_to_is_there_with_what_its_methods_call(
    notebook: dict[str, Any], content: ContentStore
) -> None:
    found = texts("net.rate", notebook, content)
    assert found["Net"].startswith('class Net:\n    "A model."\n')
    assert found["Net"].endswith("return [lambda x: x + 1]\n")
    assert found["scale"] == "@loud\ndef scale(x, by=2):\n    return x * by\n"
    assert not [name for name in found if name.startswith("Net.")], "methods are parts of their class"


def test_what_the_cell_does_not_reach_is_not_there(notebook: dict[str, Any], content: ContentStore) -> None:
    assert texts("scale(3)", notebook, content).keys() == {"scale"}


def test_a_nested_class_alone_is_found_by_its_qualified_name(notebook: dict[str, Any]) -> None:
    part = notebook["Net"].Part
    assert definition_texts({"Net.Part": part})["Net.Part"].lstrip().startswith("class Part:")


def test_of_a_class_that_was_written_twice_in_a_cell_the_last_one_counts() -> None:
    twice = "class A:\n    def f(self): return 1\n\nclass A:\n    def f(self): return 2\n"
    assert "return 2" in definition_texts({"A": cell(twice, "<cell 2>")["A"]})["A"]


def test_what_has_no_source_is_left_out() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(): pass\nclass A:\n    def g(self): pass", namespace)
    assert definition_texts({"f": namespace["f"], "A": namespace["A"]}) == {}


def test_long_ones_are_cut_and_the_longest_give_way() -> None:
    body = "".join(f"    x = {number}\n" for number in range(3000))
    many: dict[str, FunctionType | type] = {}
    for number in range(8):
        many[f"f{number}"] = cell(f"def f{number}():\n{body}", f"<long {number}>")[f"f{number}"]
    many["short"] = cell("def short(): pass\n", "<short>")["short"]
    found = definition_texts(many)
    assert found["short"] == "def short(): pass\n"
    assert "characters more" in found["f0"]
    assert len(found["f0"]) < MOST_CHARACTERS + 100
    assert found["f7"].endswith("were too many to be kept")
    assert sum(map(len, found.values())) < MOST_IN_ALL + 1000


def test_modules_are_text_and_bounded_too() -> None:
    modules = [
        LocalModule(name="helpers", path="/a/helpers.py", is_package=False, source=b"x = '\xff'\n"),
        LocalModule(name="long", path="/a/long.py", is_package=False, source=b"#" * 10 * MOST_CHARACTERS),
    ]
    found = module_texts(modules)
    assert found["helpers"] == "x = '\ufffd'\n"
    assert len(found["long"]) < MOST_CHARACTERS + 100
