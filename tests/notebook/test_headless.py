"""The same in a real kernel, driven by nbclient: what is saved in the notebook."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import run_kernel
from nbclient import NotebookClient

# Patches the cluster in the kernel, as the fixtures do here.
SETUP = """
import sys
from types import ModuleType
import jupyter_train
from jupyter_train import cluster
from tests.notebook import fakes
control = fakes.FakeControl()
connection = fakes.FakeConnection(control)
cluster.open_cluster = lambda name=None, *, ranks=None: connection
cluster.current = lambda: connection
for name in ("capture", "result"):
    module = ModuleType(f"jupyter_train.transport.{name}")
    for key in ("capture", "apply_result", "load_result"):
        setattr(module, key, getattr(fakes, key))
    sys.modules[module.__name__] = module

import time
def slowly(run):
    run.begin()
    for step in range(1, 6):
        run.metrics(0, loss=[1.0 / step])
        run.prints(f"step {step}\\n")
        time.sleep(0.1)
    run.bring(answer=42)
    run.end()
control.script, control.on_thread = slowly, True
%load_ext jupyter_train
"""


def executed(folder: Path, *cells: str, allow_errors: bool = False) -> list[nbformat.NotebookNode]:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in (SETUP, *cells)]
    )
    NotebookClient(
        notebook,
        timeout=60,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        allow_errors=allow_errors,
    ).execute()
    return [cell.outputs for cell in notebook.cells[1:]]


def of_kind(outputs: list[nbformat.NotebookNode], kind: str) -> list[nbformat.NotebookNode]:
    return [output for output in outputs if output.output_type == kind]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_saved_notebook_has_the_final_picture_the_prints_and_the_names(tmp_path: Path) -> None:
    trained, used, background, other, waited = executed(
        tmp_path,
        "%%train -n 2 --name digits\nprint('hello')\n",
        "answer",
        "%%train --bg --name later\npass\n",
        "time.sleep(2.5)\nprint('other')\n",
        "%train wait later",
    )
    (display,) = of_kind(trained, "display_data")
    assert "SUCCEEDED" in display.data["text/plain"]
    assert "image/png" in display.data
    assert set(display.data) == {"text/plain", "text/html", "image/png"}
    assert "".join(o.text for o in of_kind(trained, "stream")) == "".join(f"step {n}\n" for n in range(1, 6))
    assert of_kind(used, "execute_result")[0].data["text/plain"] == "42"
    # nbclient hears only the cell that runs: the end is shown when it is waited for.
    (display,) = of_kind(background, "display_data")
    assert "SUCCEEDED" in display.data["text/plain"]
    assert [o.text for o in of_kind(other, "stream")] == ["other\n"]
    assert "answer" in "".join(o.text for o in of_kind(waited, "stream"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_run_in_the_background_speaks_under_its_own_cell(tmp_path: Path) -> None:
    with run_kernel(cwd=str(tmp_path)) as client:
        client.execute_interactive(SETUP, timeout=60, output_hook=lambda message: None)
        ids = [
            client.execute(code)
            for code in ("%%train --bg --name later\npass\n", "time.sleep(2)\nprint('other')\n")
        ]
        said: dict[str, str] = {}
        ended = False
        while "other" not in said.get(ids[1], "") or not ended:
            message = client.get_iopub_msg(timeout=30)
            parent, content = message["parent_header"].get("msg_id", ""), message["content"]
            if message["msg_type"] == "stream":
                said[parent] = said.get(parent, "") + content["text"]
            elif message["msg_type"] == "update_display_data":
                assert parent == ids[0]
                ended = "SUCCEEDED" in content["data"]["text/plain"]
    assert said == {ids[0]: "".join(f"step {n}\n" for n in range(1, 6)), ids[1]: "other\n"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_errors_are_the_users_own_and_few_lines(tmp_path: Path) -> None:
    broken, failed = executed(
        tmp_path,
        "%%train\nx = 1\nfor = 2\n",
        "def fail(run):\n"
        "    run.begin()\n"
        "    run.error(1, 'ZeroDivisionError', 'division by zero')\n"
        "    run.end('FAILED')\n"
        "control.script = fail\n"
        "get_ipython().run_cell_magic('train', '--name digits', '1 / 0')\n",
        allow_errors=True,
    )
    (error,) = of_kind(broken, "error")
    assert error.ename == "SyntaxError"
    assert "line 3" in error.traceback[0]
    assert len("\n".join(error.traceback).splitlines()) <= 5
    (error,) = of_kind(failed, "error")
    assert error.ename == "ZeroDivisionError"
    assert error.traceback[0] == "ZeroDivisionError in rank 1 of 2, run digits"
    assert len(error.traceback) <= 15
