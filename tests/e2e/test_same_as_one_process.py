"""A cell on N ranks gives what the plain script gives, run by plain Python."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap

import pytest

from tests.e2e.kit import Notebook

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# 147 samples in batches of 16: the last batch holds 3, so that of 4 ranks one gets none.
SETUP = """
import json
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

source = torch.Generator().manual_seed(5)
X = torch.randn(147, 1, 8, 8, generator=source, dtype=torch.float64)
Y = (X[:, 0, 0, :3].sum(1) > 0).long() + (X[:, 0, 1, 1] > 0.5).long()
V = torch.randn(61, 1, 8, 8, generator=source, dtype=torch.float64)
W = (V[:, 0, 0, :3].sum(1) > 0).long()
"""

CELL = """
torch.manual_seed(1)
model = {model}.double()
opt = {optimizer}
sched = torch.optim.lr_scheduler.StepLR(opt, 7, gamma=0.5)
loader = DataLoader(TensorDataset(X, Y, torch.arange(len(X))), batch_size=16, shuffle=True)
val = DataLoader(TensorDataset(V, W), batch_size=16)
accuracies, losses = [], []
for epoch in range(2):
    model.train()
    for x, y, ids in loader:
        print("ids", epoch, ids.tolist())
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        opt.step()
        sched.step()
        losses.append(loss.item())
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in val:
            correct += (model(x).argmax(1) == y).sum().item()
    accuracies.append(correct / len(V))
"""

REPORT = """
print("RESULT " + json.dumps({
    "weights": [p.detach().flatten().tolist() for p in model.parameters()],
    "accuracies": accuracies,
    "losses": losses,
}))
"""

MLP = "nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 3))"
CNN = (
    "nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),"
    " nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))"
)
CASES = {
    "mlp-sgd-momentum": (MLP, "torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)"),
    "mlp-adamw": (MLP, "torch.optim.AdamW(model.parameters(), lr=3e-3)"),
    "cnn-sgd-momentum": (CNN, "torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)"),
    "cnn-adamw": (CNN, "torch.optim.AdamW(model.parameters(), lr=3e-3)"),
}


@pytest.fixture(scope="module")
def plain_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[float]]]:
    """What the same texts give as a plain script, run by Python without our package."""
    script = tmp_path_factory.mktemp("plain") / "plain.py"
    check = "import sys\nassert not any(m.startswith('jupyter_train') for m in sys.modules)\n"
    script.write_text(SETUP + "".join(cell_of(case) + REPORT for case in CASES) + check)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, results_in(done.stdout), strict=True))


def cell_of(case: str) -> str:
    model, optimizer = CASES[case]
    return textwrap.dedent(CELL.format(model=model, optimizer=optimizer))


def results_in(text: str) -> list[dict[str, list[float]]]:
    lines = [line for line in text.splitlines() if line.startswith("RESULT ")]
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


def largest_relative_difference(ours: list[list[float]], theirs: list[list[float]]) -> float:
    scale = max(abs(v) for tensor in theirs for v in tensor)
    pairs = zip(ours, theirs, strict=True)
    return max(abs(a - b) for x, y in pairs for a, b in zip(x, y, strict=True)) / scale


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_weights_losses_and_accuracy_equal_those_of_the_plain_script(
    notebook: Notebook, plain_results: dict[str, dict[str, list[float]]], case: str, ranks: int
) -> None:
    cell, expected = cell_of(case), plain_results[case]
    notebook.run(SETUP)

    notebook.run(f"%%train -n {ranks}\n{cell}", timeout=120)
    [got] = results_in(notebook.run(REPORT).stdout)

    assert largest_relative_difference(got["weights"], expected["weights"]) <= 1e-9
    assert got["accuracies"] == expected["accuracies"]
    assert got["losses"] == pytest.approx(expected["losses"], rel=1e-9)

    reply = notebook.run(
        "import jupyter_train as jt\n"
        f"print('LOGS ' + json.dumps([jt.run('last').log(rank=r) for r in range({ranks})]))"
    )
    logs = json.loads(
        next(x for x in reply.stdout.splitlines() if x.startswith("LOGS ")).removeprefix("LOGS ")
    )
    for epoch in range(2):
        shares = [
            [
                i
                for line in log.splitlines()
                if line.startswith(f"ids {epoch} ")
                for i in ast.literal_eval(line[6:])
            ]
            for log in logs
        ]
        # A rank without a share of the last batch sees one sample with weight zero: 147 = 9 x 16 + 3.
        padded = 1 if ranks == 4 else 0
        assert sum(len(share) for share in shares) - padded == 147
        assert sorted({i for share in shares for i in share}) == list(range(147))
        assert all(len(share) < 147 for share in shares)
