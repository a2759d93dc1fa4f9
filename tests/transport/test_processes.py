"""Kernel and rank as real processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.transport.conftest import Notebook

WITHOUT_TORCH = """
import json, sys, types
from pathlib import Path
from jupyter_train.transport.capture import capture
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.result import apply_result, load_result
from tests.transport.rank import run

folder = Path(sys.argv[1])
main = sys.modules["__main__"]
notebook = types.ModuleType("__main__")
sys.modules["__main__"] = notebook
names = notebook.__dict__
exec("def double(x): return 2 * x\\nhistory = []", names)
content = ContentStore(folder / "content")
source = "history.append(double(4))\\ny = history[-1]"
captured = capture(source, names, content=content)
assert "torch" not in sys.modules, "capture imported torch"
from dataclasses import asdict
request = {"source": source, "refs": [asdict(ref) for ref in captured.refs], "content": str(content.folder),
           "result": str(folder / "result.bin"), "keep": None, "large_bytes": 0, "sys_path": []}
import subprocess
answer = subprocess.run([sys.executable, "-m", "tests.transport.rank", "--once"], input=json.dumps(request),
                        text=True, capture_output=True, check=True)
assert "failed" not in json.loads(answer.stdout), answer.stdout
apply_result(folder / "result.bin", captured, names)
load_result(folder / "result.bin", captured.refs, content)
assert "torch" not in sys.modules, "the way back imported torch"
print(names["y"], names["history"])
"""


def test_a_kernel_without_torch_stays_without(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8", "[8]"]


@pytest.mark.slow
def test_a_rank_that_starts_from_nothing_does_the_same(notebook: Notebook) -> None:
    notebook.cell(
        "import torch\nimport torch.nn.functional as F\n"
        "model = torch.nn.Linear(2, 1)\noptimizer = torch.optim.SGD(model.parameters(), lr=0.1)"
    )
    weight = notebook["model"].weight.detach().clone()
    source = (
        "loss = F.mse_loss(model(torch.ones(3, 2)), torch.zeros(3, 1))\nloss.backward()\noptimizer.step()"
    )
    captured = notebook.capture(source)
    result = notebook.folder / "result.bin"
    request = {
        "source": source,
        "refs": [asdict(ref) for ref in captured.refs],
        "content": str(notebook.content.folder),
        "result": str(result),
        "keep": None,
        "large_bytes": 0,
        "sys_path": [],
    }

    done = subprocess.run(
        [sys.executable, "-m", "tests.transport.rank", "--once"],
        input=json.dumps(request),
        text=True,
        capture_output=True,
        check=True,
        timeout=100,
    )

    from jupyter_train.transport.result import apply_result

    assert not json.loads(done.stdout)["error"]
    applied = apply_result(result, captured, notebook.names)
    assert applied.names == ("loss",)
    assert not notebook["model"].weight.detach().equal(weight)
