"""What a cell shows is shown under it: text, displays, figures and results, in the order in which it made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Notebook, Reply, new_notebook

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One kernel and one cluster for the tests of this file."""
    home, cwd = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebook")
    with new_notebook(home, cwd) as opened:
        opened.run("%%train -n 2\npass", timeout=60)
        yield opened
        opened.run("import jupyter_train as jt\njt.cluster.stop()")


def shown(notebook: Notebook, cell: str) -> Reply:
    reply = notebook.run(cell)
    assert reply.error is None, reply.all_text
    return reply


def cells_own(reply: Reply) -> list[dict[str, Any]]:
    """The displays under a cell less those of the live view."""
    return [d for d in reply.displays if not str(d.get("text/plain")).startswith("run ")]


def test_displays_have_their_mime_types(notebook: Notebook) -> None:
    reply = shown(
        notebook,
        "%%train -n 2\nfrom IPython.display import HTML\n"
        "display(HTML('<b>bold</b>'))\ndisplay({'application/json': {'a': [1, 2]}, 'text/plain': 'a'}, raw=True)",
    )
    html, json = cells_own(reply)
    assert html["text/html"] == "<b>bold</b>"
    assert json["application/json"] == {"a": [1, 2]}


def test_the_last_line_shows_its_value_once(notebook: Notebook) -> None:
    reply = shown(notebook, "%%train -n 2\n{'a': 1}")
    assert cells_own(reply) == [{"text/plain": "{'a': 1}"}]
    assert reply.stdout == ""
    assert cells_own(shown(notebook, "%%train -n 1\n6 * 7;  # hidden")) == []


def test_the_result_has_the_number_of_its_cell(notebook: Notebook) -> None:
    message = notebook.start("%%train -n 1\n'value'")
    numbers = {}
    while "idle" not in numbers:
        received = notebook.client.get_iopub_msg(timeout=30)
        content, kind = received["content"], received["msg_type"]
        if received["parent_header"].get("msg_id") != message:
            continue
        if kind in ("execute_input", "execute_result"):
            numbers[kind] = content["execution_count"]
        elif kind == "status" and content["execution_state"] == "idle":
            numbers["idle"] = 0
    notebook.client.get_shell_msg(timeout=5)
    assert numbers["execute_result"] == numbers["execute_input"]


def test_an_open_figure_and_a_shown_one_become_pictures(notebook: Notebook) -> None:
    reply = shown(
        notebook,
        "%%train -n 2\nimport matplotlib.pyplot as plt\n"
        "plt.plot([1, 2]); plt.show()\nprint('between')\nfig, ax = plt.subplots(); ax.plot([2, 1]);",
    )
    pictures = cells_own(reply)
    assert [set(picture) for picture in pictures] == [{"image/png", "text/plain"}] * 2
    assert reply.stdout == "between\n"


def test_figures_have_the_notebooks_options(notebook: Notebook) -> None:
    shown(notebook, "%matplotlib inline\n%config InlineBackend.figure_formats = ['svg']")
    try:
        (picture,) = cells_own(
            shown(notebook, "%%train -n 1\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        )
    finally:
        notebook.run("%config InlineBackend.figure_formats = ['png']")
    assert set(picture) == {"image/svg+xml", "text/plain"}


def test_text_and_displays_come_in_the_order_of_the_cell(notebook: Notebook) -> None:
    message = notebook.start("%%train -n 2\nfor i in range(4):\n    print(i)\n    display(i)")
    assert [text for text in in_order(notebook, message) if not text.startswith("run ")] == [
        text for i in range(4) for text in (f"{i}\n", str(i))
    ]


def test_other_ranks_put_their_displays_in_the_log(notebook: Notebook) -> None:
    reply = shown(notebook, "%%train -n 2 --name ranks\ndisplay(f'rank {train.rank}')\nNone")
    assert cells_own(reply) == [{"text/plain": "'rank 0'"}]
    log = shown(notebook, "%train log ranks --rank 1").stdout
    assert "'rank 1'" in log


def test_a_handle_changes_its_display(notebook: Notebook) -> None:
    reply = shown(notebook, "%%train -n 1\nh = display('one', display_id='handle')\nh.update('two')\ndel h")
    assert [d["text/plain"] for d in cells_own(reply)][-1] == "'two'"


def test_a_cleared_output_has_the_live_view_again(notebook: Notebook) -> None:
    message = notebook.start(
        "%%train -n 1\nfrom IPython.display import clear_output\n"
        "import time\nprint('gone')\ntime.sleep(.6)\nclear_output(wait=True)\nprint('stays')"
    )
    last = in_order(notebook, message)
    at = last.index("<clear>")
    assert "gone\n" in last[:at]
    assert last[at + 1].startswith("run ")
    assert last[at + 2] == "stays\n"
    assert last[-1].startswith("run ")


def test_get_ipython_is_a_notebooks(notebook: Notebook) -> None:
    reply = shown(
        notebook,
        "%%train -n 1\nprint(type(get_ipython()).__name__, 'IPKernelApp' in get_ipython().config)\n"
        "x = 5\nprint(get_ipython().user_ns['x'])",
    )
    assert reply.stdout == "ZMQInteractiveShell True\n5\n"
    assert set(Path(notebook.home).rglob("history.sqlite")) == set()


BARS = {
    "std": "from tqdm import tqdm",
    "notebook": "from tqdm.notebook import tqdm",
    "auto": "from tqdm.auto import tqdm",
    "asyncio": "from tqdm.asyncio import tqdm",
    "rich": "from tqdm.rich import tqdm",
}


@pytest.mark.parametrize("flavour", BARS)
def test_a_bar_of_any_flavour_is_one_of_the_view(notebook: Notebook, flavour: str) -> None:
    pytest.importorskip("tqdm")
    reply = shown(
        notebook,
        f"%%train -n 2\n{BARS[flavour]}\nimport time\n"
        "for epoch in range(2):\n"
        "    bar = tqdm(range(30), desc='epoch')\n"
        "    for i in bar:\n        time.sleep(.005)\n        bar.set_postfix(loss=0.5)\n"
        "for i in tqdm(range(3), desc='brief', leave=False): pass\n"
        "del bar",
    )
    assert (reply.stdout, reply.stderr) == ("", "")
    last = reply.displays[-1]["text/plain"]
    assert "epoch ████████████████████ 30/30" in last
    assert "loss=0.5" in last
    assert last.count("30/30") == 1
    assert "brief" not in last
    assert cells_own(reply) == []


def test_a_bar_of_an_earlier_cell_and_its_write_do_too(notebook: Notebook) -> None:
    pytest.importorskip("tqdm")
    shown(notebook, "import tqdm as bars\nfrom tqdm.auto import tqdm, trange")
    reply = shown(
        notebook,
        "%%train -n 2\nfor i in trange(4, desc='outer'):\n    bars.tqdm.write(f'at {i}')\n"
        "with open('bar.txt', 'w') as file:\n    list(bars.tqdm(range(3), file=file))\n"
        "written = open('bar.txt').read()\ndel file",
    )
    assert reply.stdout == "at 0\nat 1\nat 2\nat 3\n"
    assert "outer ████████████████████ 4/4" in reply.displays[-1]["text/plain"]
    assert "3/3" in shown(notebook, "print(written)").stdout


def test_each_run_shows_under_its_own_cell(notebook: Notebook) -> None:
    cell = "%%train -n 1 --bg --name {0}\nimport time\ntime.sleep(.5)\nprint('{0}')\ndisplay('{0}')\n'{0}!'"
    first = notebook.start(cell.format("first"))
    second = notebook.start(cell.format("second"))
    third = notebook.start("print('third')\n%train wait first\n%train wait second")
    said: dict[str, list[str]] = {first: [], second: [], third: []}
    while sum("SUCCEEDED" in text for text in said[first] + said[second]) < 2:
        received = notebook.client.get_iopub_msg(timeout=30)
        content, kind = received["content"], received["msg_type"]
        if kind == "stream":
            said[received["parent_header"]["msg_id"]].append(content["text"])
        elif kind in ("display_data", "execute_result", "update_display_data"):
            said[received["parent_header"]["msg_id"]].append(content["data"]["text/plain"])
    own = {key: [t for t in texts if not t.startswith("run ")] for key, texts in said.items()}
    assert own[first] == ["first\n", "'first'", "'first!'"]
    assert own[second] == ["second\n", "'second'", "'second!'"]
    assert "first\n" not in own[third]
    shown(notebook, "pass")


def test_threads_forks_warnings_and_logging_are_heard(notebook: Notebook) -> None:
    reply = shown(
        notebook,
        "%%train -n 1\nimport logging, os, sys, threading, warnings\n"
        "thread = threading.Thread(target=print, args=('from a thread',)); thread.start(); thread.join()\n"
        "if (pid := os.fork()) == 0:\n    print('from a fork')\n    display('shown in a fork')\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "warnings.warn('careful')\nlogging.warning('logged')\nprint('to stderr', file=sys.stderr)\ndel thread",
    )
    assert "from a thread\n" in reply.stdout
    assert "from a fork\n" in reply.stdout
    assert "'shown in a fork'\n" in reply.stdout
    for said in ("UserWarning: careful", "WARNING:root:logged", "to stderr"):
        assert said in reply.stderr


def in_order(notebook: Notebook, message: str) -> list[str]:
    """What the messages of a cell say, in order; an update of a display too."""
    found: list[str] = []
    while True:
        received = notebook.client.get_iopub_msg(timeout=30)
        if received["parent_header"].get("msg_id") != message:
            continue
        content, kind = received["content"], received["msg_type"]
        if kind == "stream":
            found.append(content["text"])
        elif kind in ("display_data", "execute_result", "update_display_data"):
            found.append(content["data"]["text/plain"])
        elif kind == "clear_output":
            found.append("<clear>")
        elif kind == "status" and content["execution_state"] == "idle":
            notebook.client.get_shell_msg(timeout=5)
            return found
