"""Whatever happens to a run, nothing of it is left and the next one starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.kit import Notebook, new_notebook, processes_of_runs, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TRAINING = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
"""

ENDLESS = """%%train -n 2 --name endless
import time
model = nn.Linear(4, 1)
opt = torch.optim.SGD(model.parameters(), lr=1e-3)
steps = 0
while True:
    for x, y in DataLoader(data, batch_size=8):
        loss = ((model(x) - y) ** 2).mean()
        opt.zero_grad(); loss.backward(); opt.step()
        steps += 1
        time.sleep(0.005)
"""


def assert_nothing_is_left_and_the_next_run_starts(notebook: Notebook) -> None:
    wait_until(lambda: processes_of_runs(notebook.home) == [], 15)
    reply = notebook.run("%%train -n 2\nanswer = train.sum(train.rank + 20.5)", timeout=60)
    assert reply.error is None
    assert notebook.run("print(answer)").stdout.strip() == "42.0"
    wait_until(lambda: processes_of_runs(notebook.home) == [], 15)


@pytest.mark.timeout(120)
def test_after_an_ordinary_run_no_process_is_left(notebook: Notebook) -> None:
    assert notebook.run("%%train -n 2\nx = 1").error is None
    assert_nothing_is_left_and_the_next_run_starts(notebook)


@pytest.mark.timeout(120)
def test_an_exception_in_one_rank_ends_the_run_though_the_other_sleeps(notebook: Notebook) -> None:
    cell = """%%train -n 2
import time
if train.rank == 1:
    rows = [1, 2, 3]
    started = time.time(); print("raising", flush=True)
    rows[10]
time.sleep(600)"""
    notebook.run("%%train -n 2\npass")
    reply = notebook.run(cell, timeout=60)
    assert reply.error is not None
    assert reply.error.name == "IndexError"
    text = reply.error.plain_text
    assert "rows[10]" in text
    assert "line 6" in text or "6" in text
    assert "rank 1" in text
    assert len(text.strip().splitlines()) <= 15
    assert_nothing_is_left_and_the_next_run_starts(notebook)


@pytest.mark.timeout(120)
def test_ranks_that_agree_are_grouped(notebook: Notebook) -> None:
    reply = notebook.run("%%train -n 2\nvalues = [train.sum(1)]\nvalues[10]")
    assert reply.error is not None
    assert reply.error.name == "IndexError"
    assert "ranks 0–1" in reply.error.plain_text or "ranks 0-1" in reply.error.plain_text


@pytest.mark.timeout(120)
def test_names_bound_before_a_failure_come_back(notebook: Notebook) -> None:
    reply = notebook.run("%%train -n 2\nbefore = 7\nraise ValueError('half way')")
    assert reply.error is not None
    assert reply.error.name == "ValueError"
    assert notebook.run("print(before)").stdout.strip() == "7"


@pytest.mark.timeout(120)
def test_an_interrupt_in_mid_step_keeps_the_names_and_stops_run_all(notebook: Notebook) -> None:
    notebook.run(TRAINING)
    reply = notebook.run(ENDLESS, timeout=60, interrupt_when=lambda: notebook.run_is("endless", "RUNNING"))
    assert reply.error is not None
    assert reply.error.name == "KeyboardInterrupt"
    assert int(notebook.run("print(steps)").stdout) > 0
    assert notebook.end_of("endless") == "CANCELLED"
    assert_nothing_is_left_and_the_next_run_starts(notebook)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "stuck",
    ["import time; time.sleep(600)", "import ctypes; ctypes.PyDLL(None).sleep(600)"],
    ids=["asleep", "in C with the interpreter lock held"],
)
def test_an_interrupt_ends_ranks_that_are_stuck(notebook: Notebook, stuck: str) -> None:
    reply = notebook.run(
        f"%%train -n 2 --name stuck\n{stuck}",
        timeout=60,
        interrupt_when=lambda: notebook.run_is("stuck", "RUNNING"),
    )
    assert reply.error is not None
    assert reply.error.name == "KeyboardInterrupt"
    assert notebook.end_of("stuck") == "CANCELLED"
    assert_nothing_is_left_and_the_next_run_starts(notebook)


@pytest.mark.timeout(120)
def test_grandchildren_end_with_their_rank(notebook: Notebook) -> None:
    cell = "%%train -n 2\nimport subprocess\nchild = subprocess.Popen(['sleep', '600'], start_new_session=True).pid"
    assert notebook.run(cell).error is None
    wait_until(lambda: processes_of_runs(notebook.home) == [], 15)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kernel_ends", [Notebook.kill9, lambda kernel: kernel.manager.shutdown_kernel()])
def test_a_run_outlives_its_kernel_and_a_new_kernel_gets_its_names(
    shared_home: Path, tmp_path: Path, kernel_ends: Callable[[Notebook], None]
) -> None:
    cell = """%%train -n 2 --name orphan
import time
for step in range(60):
    time.sleep(0.1)
    train.log(progress=step)
outcome = "finished"
"""
    with new_notebook(shared_home, tmp_path) as first:
        first.start(cell)
        wait_until(lambda: first.run_is("orphan", "RUNNING"), 30)
        kernel_ends(first)
    with new_notebook(shared_home, tmp_path) as second:
        assert "orphan" in second.run("%train runs").all_text
        second.run("import jupyter_train as jt\nrun = jt.run('last'); run.wait()", timeout=60)
        assert second.run("print(run.result()['outcome'], run.state)").stdout.split() == [
            "finished",
            "SUCCEEDED",
        ]
    assert processes_of_runs(shared_home) == []


@pytest.mark.timeout(120)
def test_too_many_ranks_for_a_cluster_of_somebody_else_is_an_error(notebook: Notebook) -> None:
    notebook.run(
        "from distributed import LocalCluster, Client\n"
        "theirs = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)\n"
        "import jupyter_train as jt; jt.cluster.use(Client(theirs))",
        timeout=60,
    )
    reply = notebook.run("%%train -n 3\npass")
    assert reply.error is not None
    assert reply.error.name == "NotEnoughWorkers"
    assert "--ranks 1" in reply.error.plain_text
    notebook.run("%%train\nwho = train.world_size", timeout=60)
    assert notebook.run("print(who)").stdout.strip() == "1"
    notebook.run("theirs.close()", timeout=60)


@pytest.mark.timeout(120)
def test_what_cannot_start_is_refused_before_anything_starts(notebook: Notebook) -> None:
    reply = notebook.run("%%train\nx = (1,\n")
    assert reply.error is not None
    assert reply.error.name == "SyntaxError"
    assert "UsageError" in notebook.run("%%train --rank 2\npass").all_text
    assert "--ranks" in notebook.run("%%train --rnaks 2\npass").all_text
    notebook.run("state = {'files': [open('/dev/null')]}")
    reply = notebook.run("%%train\nprint(state)")
    assert reply.error is not None
    assert reply.error.name == "CaptureError"
    assert "state['files'][0]" in reply.error.plain_text


@pytest.mark.timeout(120)
def test_a_worker_that_dies_ends_the_run_with_its_name(notebook: Notebook) -> None:
    cell = """%%train -n 2 --name bereft
import os, signal, time
if train.rank == 1:
    home = ("JUPYTER_TRAIN_HOME=" + os.environ["JUPYTER_TRAIN_HOME"]).encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            is_worker = open(f"/proc/{pid}/comm").read().startswith("jt-w")
            if is_worker and home in open(f"/proc/{pid}/environ", "rb").read().split(b"\\0"):
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass
time.sleep(600)"""
    reply = notebook.run(cell, timeout=60)
    assert reply.error is not None
    assert reply.error.name == "RankLost"
    wait_until(lambda: processes_of_runs(notebook.home) == [], 15)
    assert notebook.run("%%train -n 2\nagain = 1", timeout=60).error is None
