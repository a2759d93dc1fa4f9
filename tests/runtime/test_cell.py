"""The cell as code: the notebook's line numbers, its last value, its coroutines."""

from __future__ import annotations

import linecache
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from jupyter_train.runtime.cell import cell_file, compile_cell, execute, new_main


@pytest.fixture
def namespace() -> Iterator[dict[str, Any]]:
    main = sys.modules["__main__"]
    yield new_main()
    sys.modules["__main__"] = main


def run(source: str, namespace: dict[str, Any], first_line: int = 2) -> None:
    execute(compile_cell(source, file=cell_file("digits"), first_line=first_line), namespace)


def test_lines_are_numbered_as_in_the_notebook(namespace: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run("x = 1\n\nx / 0", namespace, first_line=4)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno, last.line) == ("<train digits>", 6, "x / 0")
    assert linecache.getline("<train digits>", 4) == "x = 1\n"


def test_a_syntax_error_has_the_notebooks_line() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile_cell("x = 1\ny = = 2", file="<train a>", first_line=3)
    assert caught.value.lineno == 4


def test_the_cell_is_main(namespace: dict[str, Any]) -> None:
    run("import sys\nname = __name__\nsame = sys.modules['__main__'].__dict__ is globals()", namespace)
    assert namespace["name"] == "__main__"
    assert namespace["same"]


def test_the_last_value_is_shown(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("x = 20\nx + 1", namespace)
    assert capsys.readouterr().out == "21\n"


@pytest.mark.parametrize("source", ["x = 3", "print", "None", "4;"])
def test_what_a_notebook_does_not_show_is_not_shown(
    source: str, namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run(source, namespace)
    assert capsys.readouterr().out in ("", "<built-in function print>\n")


def test_await_works_at_top_level(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run("import asyncio\nawait asyncio.sleep(0)\nasync def f(): return 5\nawait f()", namespace)
    assert capsys.readouterr().out == "5\n"


def test_future_lines_hold_for_the_whole_cell(namespace: dict[str, Any]) -> None:
    run("from __future__ import annotations\ndef f(x: Unknown): ...\nf.__annotations__", namespace)
    assert namespace["f"].__annotations__ == {"x": "Unknown"}


def test_our_own_future_lines_do_not_leak_into_the_cell(namespace: dict[str, Any]) -> None:
    with pytest.raises(NameError):
        run("def f(x: Unknown): ...", namespace)


def test_an_empty_cell_does_nothing(namespace: dict[str, Any]) -> None:
    run("# nothing", namespace)


@pytest.mark.parametrize(
    ("last", "code"), [("", 0), ("1 / 0", 1), ("import sys; sys.exit(3)", 3), ("import sys; sys.exit()", 0)]
)
def test_a_fork_that_comes_to_the_end_of_the_cell_ends_there(last: str, code: int) -> None:
    source = f"import os\nchild = os.fork()\nif not child:\n    os.close(2)\n    {last or 'pass'}\n"
    namespace: dict[str, Any] = {}
    execute(compile_cell(source, file="<train fork>", first_line=1), namespace)
    _, status = os.waitpid(namespace["child"], 0)
    assert os.waitstatus_to_exitcode(status) == code


def test_builtins_that_a_cell_rebinds_are_back_when_it_ends(namespace: dict[str, Any]) -> None:
    import builtins

    before = dict(vars(builtins))
    cell = "import builtins\nfor name in ('len', 'isinstance', 'BaseException', 'print'):\n    setattr(builtins, name, None)\n"
    run(f"{cell}builtins.added = 5", namespace)
    with pytest.raises(ZeroDivisionError):
        run(f"{cell}1 / 0", namespace)
    assert vars(builtins).pop("added") == 5
    assert vars(builtins) == before


def test_signals_that_a_cell_blocks_reach_the_rank_again(namespace: dict[str, Any]) -> None:
    import signal

    run("import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})", namespace)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(
    "question",
    [
        "input('name?')",
        "import getpass; getpass.getpass()",
        "from getpass import getpass; getpass('x')",
        "breakpoint()",
        "import pdb; pdb.set_trace()",
        "import pdb; pdb.run('1')",
        "import bdb, pdb\nclass Own(pdb.Pdb): pass\nOwn().set_trace()\nx = 1",
    ],
)
def test_a_question_ends_with_what_to_do_instead(question: str) -> None:
    program = (
        "from jupyter_train.runtime import keyboard; keyboard.unplug()\n"
        "from jupyter_train.runtime.cell import compile_cell, execute, new_main\n"
        f"execute(compile_cell({question!r}, file='<train x>', first_line=2), new_main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: ")
    assert "cannot ask anybody" in last
