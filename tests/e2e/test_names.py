"""What a cell reads, in a real kernel: names that are nowhere, modules beside the notebook, modules that are not there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.kit import Notebook

pytestmark = [pytest.mark.cluster]


@pytest.mark.timeout(180)
def test_modules_beside_the_notebook_are_imported_as_they_are_now(notebook: Notebook, tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("factor = 2\nfrom layers import Twice\n")
    (tmp_path / "layers.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n"
        "class Twice(nn.Module):\n    def forward(self, x): return 2 * x\n"
        "def note(): return Path(__file__).with_name('note.txt').read_text()\n"
    )
    (tmp_path / "note.txt").write_text("beside")
    first = notebook.run("import helpers, layers\nnet = helpers.Twice()", timeout=60)
    assert first.error is None, first.all_text
    (tmp_path / "helpers.py").write_text("factor = 30\nfrom layers import Twice\n")

    reply = notebook.run(
        "%%train -n 2 --name beside\nfrom helpers import factor\nimport torch\n"
        "y = float(net(torch.tensor(1.0)) * factor)\nnote = layers.note()\nfile = layers.__file__",
        timeout=120,
    )

    assert reply.error is None, reply.all_text
    assert "helpers was edited after the notebook imported it" in reply.all_text
    shown = notebook.run("print(y, note, file, type(net) is helpers.Twice)")
    assert shown.stdout == f"60.0 beside {tmp_path / 'layers.py'} True\n"


@pytest.mark.timeout(120)
def test_a_name_that_is_nowhere_costs_no_run(notebook: Notebook) -> None:
    notebook.run("model = 1")
    started = time.monotonic()

    reply = notebook.run("%%train -n 2 --name typo\nfor step in range(3):\n    loss = modle * step\n")

    assert reply.error is not None
    assert (reply.error.name, reply.error.value) == ("NameError", "name 'modle' is not defined")
    assert "line 3" in reply.error.plain_text
    assert "Did you mean 'model'?" in reply.error.plain_text
    assert not notebook.has_run("typo")
    assert time.monotonic() - started < 20  # no cluster was waited for


@pytest.mark.timeout(180)
def test_a_module_that_the_worker_lacks_is_named_with_what_needs_it(notebook: Notebook) -> None:
    made = notebook.run(
        "import sys, types\nghost = sys.modules['ghost'] = types.ModuleType('ghost')\n"
        "exec('class Thing: pass', ghost.__dict__)\nthing = ghost.Thing()\nthing_module = type(thing).__module__"
    )
    assert made.error is None, made.all_text

    reply = notebook.run("%%train -n 1 --name lacks\nprint(thing)", timeout=120)

    assert reply.error is not None
    assert reply.error.name == "CaptureError"
    assert "thing needs the module ghost, which is not installed on the worker" in reply.error.plain_text
    assert "Worker tcp://" in reply.error.plain_text or "Worker tls://" in reply.error.plain_text
