"""Source of functions that travel by value."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator

import pytest

from jupyter_train.transport.code import MAX_CHARACTERS, SourceText, know_sources, label_of, source_texts
from tests.transport.conftest import Notebook

FILE = "/tmp/ipykernel_1/123.py"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    linecache.cache.pop(FILE, None)


def test_known_source_stands_in_tracebacks() -> None:
    know_sources({FILE: SourceText(text="def f():\n    return 1 / 0\n", label="Cell In[3]")})
    names: dict[str, object] = {}
    exec(compile("def f():\n    return 1 / 0\n", FILE, "exec"), names)
    try:
        names["f"]()  # type: ignore[operator]
    except ZeroDivisionError:
        told = traceback.format_exc()
    assert "return 1 / 0" in told
    assert label_of(FILE) == "Cell In[3]"


def test_a_file_of_the_disk_has_no_label() -> None:
    linecache.getlines(__file__)
    assert label_of(__file__) == ""
    assert label_of("nowhere") == ""


def test_what_is_not_known_and_what_nobody_reads_stays_away() -> None:
    linecache.cache[FILE] = (0, None, ["x" * (MAX_CHARACTERS + 1)], FILE)
    assert set(source_texts([FILE, "nowhere", __file__])) == {__file__}


def test_a_captured_function_has_its_source_on_the_rank(notebook: Notebook) -> None:
    source = "def double(n):\n    return 2 * n\n"
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    exec(compile(source, FILE, "exec"), notebook.names)
    notebook.train("import inspect\nseen = inspect.getsource(double)")
    assert notebook["seen"] == source
