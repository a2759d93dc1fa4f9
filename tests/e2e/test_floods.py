"""Cells that show more than anybody can read: they end, nothing of the log is lost, and all else goes on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.kit import Notebook, new_notebook

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MB = 10**6


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One kernel and one cluster for the tests of this file."""
    home, cwd = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebook")
    with new_notebook(home, cwd) as opened:
        opened.run("%%train -n 2\npass", timeout=60)
        yield opened
        opened.run("import jupyter_train as jt\njt.cluster.stop()")


def log_of(notebook: Notebook, name: str, rank: int) -> str:
    """The whole log of a rank, as its user gets it."""
    reply = notebook.run(
        f"import jupyter_train as jt\nopen('log.txt', 'w').write(jt.run({name!r}).log(rank={rank}))\n"
        "import os\nprint(os.path.abspath('log.txt'))",
        timeout=120,
    )
    assert reply.error is None, reply.all_text
    with open(reply.stdout.strip()) as file:
        return file.read()


def test_a_cell_that_prints_50_mb_ends_and_its_log_is_whole(notebook: Notebook) -> None:
    reply = notebook.run(
        "%%train -n 1 --name flood\nfor n in range(500_000):\n    print(f'{n:>99}')\nprint('accuracy 0.97')",
        timeout=120,
    )
    assert reply.error is None, reply.all_text
    assert len(reply.stdout) < MB
    assert reply.stdout.endswith("accuracy 0.97\n")
    assert "only in the log" in reply.stderr
    assert log_of(notebook, "flood", 0) == "".join(f"{n:>99}\n" for n in range(500_000)) + "accuracy 0.97\n"


def test_what_c_code_and_subprocesses_write_is_whole_too(notebook: Notebook) -> None:
    reply = notebook.run(
        "%%train -n 1 --name flood-of-c\nimport subprocess\n"
        "subprocess.run('seq 1 2000000', shell=True, check=True)\nNone",
        timeout=120,
    )
    assert reply.error is None, reply.all_text
    assert log_of(notebook, "flood-of-c", 0) == "".join(f"{n}\n" for n in range(1, 2_000_001))


def test_a_flood_is_stopped_as_any_cell(notebook: Notebook) -> None:
    began = time.monotonic()
    reply = notebook.run(
        "%%train -n 2 --name endless\nkept = 1\nwhile True:\n    print('x' * 999)",
        timeout=60,
        interrupt_when=lambda: notebook.run_is("endless", "RUNNING") and time.monotonic() - began > 2,
    )
    assert reply.error is not None
    assert reply.error.name == "KeyboardInterrupt", reply.all_text[-2000:]
    assert notebook.run("print(kept)").stdout == "1\n"
    assert notebook.run("%%train -n 2\nprint('after')").stdout == "after\n"


def test_one_enormous_line_and_odd_characters_arrive(notebook: Notebook) -> None:
    reply = notebook.run(
        "%%train -n 1 --name line\nprint('ü' * 3_000_000)\nprint('\\udc80 \\x00 \\x1b[31mred\\x1b[0m end')",
        timeout=60,
    )
    assert reply.error is None, reply.all_text[-2000:]
    assert "\x1b[31mred\x1b[0m end" in reply.stdout
    assert len(log_of(notebook, "line", 0).splitlines()[0]) == 3_000_000
