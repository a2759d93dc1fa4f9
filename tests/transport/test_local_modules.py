"""Modules beside the notebook travel as sources: a rank imports what the notebook would import now."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_train.transport.freshness import Freshness, freshness
from jupyter_train.transport.localmodules import MAX_PACKAGE_BYTES, is_local, local_closure
from jupyter_train.transport.sources import pack_sources, unpack_sources
from tests.transport.conftest import Notebook


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The notebook's folder, first on its path."""
    folder = tmp_path / "work"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or str(getattr(sys.modules[name], "__path__", ""))
        if str(tmp_path) in file:
            del sys.modules[name]


_PARTS = {"init": "__init__"}


def write(folder: Path, **files: str) -> None:
    """``pkg__mod="…"`` writes ``pkg/mod.py``, ``pkg__init`` the package's own file."""
    for name, text in files.items():
        path = folder / ("/".join(_PARTS.get(part, part) for part in name.split("__")) + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(*wanted: str) -> list[str]:
    return [module.name for module in local_closure(wanted).modules]


def test_the_closure_of_imports_is_followed_without_importing(beside: Path) -> None:
    write(
        beside,
        helpers="import os, torch\nfrom deep import thing\ndef f():\n  import late_one\nraise SystemExit",
        deep="import importlib\nimportlib.import_module('by_string')",
        late_one="",
        by_string="x = 1",
        unused="",
    )

    assert names("helpers", "torch.nn", "no_such_module", "__main__") == [
        "by_string",
        "deep",
        "helpers",
        "late_one",
    ]
    assert "helpers" not in sys.modules


def test_packages_come_with_their_parents_and_relative_imports(beside: Path) -> None:
    write(
        beside,
        pkg__init="",
        pkg__sub__init="",
        pkg__sub__a="from .b import x\nfrom ..top import y\nfrom . import c",
        pkg__sub__b="x = 1",
        pkg__sub__c="",
        pkg__sub__unused="",
        pkg__top="y = 2",
    )

    assert names("pkg.sub.a") == ["pkg", "pkg.sub", "pkg.sub.a", "pkg.sub.b", "pkg.sub.c", "pkg.top"]


def test_a_folder_without_init_is_a_package_too(beside: Path) -> None:
    write(beside, space__mod="from space.other import x", space__other="x = 1")

    assert names("space.mod") == ["space.mod", "space.other"]


def test_installed_and_standard_modules_are_not_local() -> None:
    assert names("torch.nn.functional", "numpy", "os", "json.decoder", "jupyter_train.errors", "pytest") == []
    assert not is_local("/somewhere/lib/python3.11/site-packages/pkg/mod.py")
    assert not is_local("built-in")
    assert not is_local(None)


def test_a_package_beyond_the_limit_stays_and_is_named(beside: Path) -> None:
    write(beside, huge="x = '" + "a" * MAX_PACKAGE_BYTES + "'", small="import huge")

    closure = local_closure(["small"])

    assert [module.name for module in closure.modules] == ["small"]
    assert closure.too_large == ("huge",)


def test_a_file_with_an_error_in_it_travels_as_it_is(beside: Path) -> None:
    write(beside, broken="def (")

    assert names("broken") == ["broken"]


def test_the_same_sources_unpack_to_the_same_files(beside: Path, tmp_path: Path) -> None:
    write(beside, one="x = 1\n", pkg__init="", pkg__two="y = 'ä'\n")
    packed = pack_sources(local_closure(["one", "pkg.two"]).modules)

    for _ in range(2):
        found = unpack_sources(packed, tmp_path / "sources" / "key")

    assert sorted(found) == ["one", "pkg", "pkg.two"]
    assert Path(found["pkg.two"].file).read_text() == "y = 'ä'\n"
    assert [entry.name for entry in (tmp_path / "sources").iterdir()] == ["key"]


# ---------------------------------------------------------------- edited files


def test_a_file_edited_after_its_import_is_known(beside: Path) -> None:
    write(beside, edited="x = 1\n", same="x = 1\n")
    fresh = Freshness()
    importlib.import_module("edited")
    importlib.import_module("same")
    fresh.look()
    write(beside, edited="x = 22\n")

    assert fresh.edited("edited", b"x = 22\n")
    assert not fresh.edited("same", b"x = 1\n")
    assert not fresh.edited("never_imported", b"")


def test_a_reload_makes_a_file_fresh_again(beside: Path) -> None:
    write(beside, again="x = 1\n")
    fresh = Freshness()
    module = importlib.import_module("again")
    fresh.look()
    write(beside, again="x = 22\n")
    os.utime(beside / "again.py", (1, 1))
    importlib.reload(module)

    assert not fresh.edited("again", b"x = 22\n")


def test_an_edit_before_the_first_look_is_seen_by_the_compiled_file(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(beside, early="x = 1\n")
    importlib.import_module("early")
    write(beside, early="x = 22\n")

    assert Freshness().edited("early", b"x = 22\n")


# ---------------------------------------------------------------- through a rank


def test_a_rank_imports_what_the_notebook_would_import_now(notebook: Notebook, beside: Path) -> None:
    write(beside, helpers="x = 1\ndef where(): return __file__\n")
    notebook.cell("import helpers")
    freshness.look()  # as after every cell
    write(beside, helpers="x = 22\ndef where(): return __file__\n")

    notebook.train("from helpers import x\nfile = helpers.where()")

    assert notebook["x"] == 22
    assert notebook["file"] == str(beside / "helpers.py")  # data beside it is found
    assert notebook.captured is not None
    (remark,) = notebook.captured.remarks
    assert "helpers was edited after the notebook imported it" in remark
    assert list(notebook.captured.sources) == ["helpers"]


def test_a_rank_on_another_disk_has_the_modules_too(notebook: Notebook, beside: Path) -> None:
    write(
        beside,
        far="import os\nfrom near import y\ndef f(): return os.path.exists(__file__), y\n",
        near="y = 5\n",
    )
    captured = notebook.capture("from far import f\nresult = f()")
    shutil.move(beside, beside.with_name("gone"))

    notebook.capture = lambda source: captured  # type: ignore[method-assign]
    notebook.train("from far import f\nresult = f()")

    assert notebook["result"] == (True, 5)


def test_objects_of_local_classes_travel_and_keep_their_class(notebook: Notebook, beside: Path) -> None:
    write(beside, shapes="class Box:\n  def __init__(self, n): self.n = n\n  def grow(self): self.n += 1\n")
    notebook.cell("from shapes import Box\nbox = Box(1)\nkind = Box")

    notebook.train("box.grow()\nsame = type(box) is kind")

    assert notebook["box"].n == 2
    assert notebook["same"]
    assert type(notebook["box"]) is notebook["kind"]


def test_functions_of_the_notebook_may_import_local_modules(notebook: Notebook, beside: Path) -> None:
    write(beside, inner="def f(): return 7\n")
    notebook.cell("def g():\n  from inner import f\n  return f()")

    notebook.train("x = g()")

    assert notebook["x"] == 7


def test_a_traceback_shows_the_users_file_and_the_lines_that_ran(notebook: Notebook, beside: Path) -> None:
    write(beside, failing="def f():\n    raise ValueError('as captured')\n")
    captured = notebook.capture("import failing\nfailing.f()")
    write(beside, failing="edited = 1\nedited = 2\n")

    notebook.capture = lambda source: captured  # type: ignore[method-assign]
    notebook.train("import failing\nfailing.f()", fails=True)

    assert f'File "{beside / "failing.py"}", line 2, in f' in notebook.told["error"]
    assert "raise ValueError('as captured')" in notebook.told["error"]


def test_a_process_that_a_rank_starts_finds_the_modules(notebook: Notebook, beside: Path) -> None:
    write(beside, work="def double(x): return 2 * x\n")
    cell = (
        "import multiprocessing, work\n"
        "with multiprocessing.get_context('spawn').Pool(1) as pool: doubled = pool.map(work.double, [1, 2])"
    )
    captured = notebook.capture(cell)
    shutil.move(beside, beside.with_name("gone"))

    notebook.capture = lambda source: captured  # type: ignore[method-assign]
    notebook.train(cell)

    assert notebook["doubled"] == [2, 4]
