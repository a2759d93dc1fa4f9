"""The shadow of a real run: what it finds, and that nothing it does or suffers is the run's."""

from __future__ import annotations

import os
import signal
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_train.runtime import processes
from jupyter_train.runtime.proof.keeper import SCRATCH, patience_s, wait_s
from tests.runtime.conftest import new_engine
from tests.runtime.kit import Cluster, processes_of, text

SETUP = """
import os, time, torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
X, Y = torch.randn(100, 10), torch.randint(0, 3, (100,))
model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))
opt = torch.optim.AdamW(model.parameters(), 0.01)
def fit(epochs, each=lambda: None):
    for epoch in range(epochs):
        for x, y in DataLoader(TensorDataset(X, Y), 20, shuffle=True):
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            each()
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Cluster]:
    with new_engine() as engine:
        engine.wait_ready()
        # The first run on fresh workers is the slow one.
        engine.wait_exits(engine.launch(SETUP + "fit(1)", strategy="auto"))
        yield engine


def started(engine: Cluster, cell: str, **more: Any) -> str:
    return engine.launch(SETUP + textwrap.dedent(cell), **{"strategy": "auto", "check": True, **more})


def ended(engine: Cluster, run: str, *, kind: str = "done") -> list[str]:
    """What was said of the proof, once all ranks ended in that way."""
    exits = engine.wait_exits(run)
    assert {cause["kind"] for cause in exits.values()} == {kind}, exits
    assert processes_of(run) == []
    end = time.monotonic() + 5
    while left := list(Path(tempfile.gettempdir()).glob(f"{SCRATCH}{run}*")):
        assert time.monotonic() < end, left
        time.sleep(0.01)
    return [e.payload["text"] for e in engine.events(run) if e.payload.get("stream") == "proof"]


def shadows(run: str) -> list[int]:
    marks = {processes.RUN_MARK: run, processes.SHADOW_MARK: "1"}
    return [pid for pid in processes.marked(marks) if processes.is_running(pid)]


def until_there_is_a_shadow(engine: Cluster, run: str) -> int:
    pids: list[int] = engine.wait(lambda: shadows(run))
    return pids[0]


HOLDS = "while not os.path.exists('go'): time.sleep(0.01)\n"  # until the test has looked
SLOW = "time.sleep(60 * ('JUPYTER_TRAIN_SHADOW' in os.environ))\n"  # only the shadow


def test_a_run_says_that_it_is_the_same_as_one_process_and_leaves_files_alone(
    engine: Cluster, tmp_path: Path
) -> None:
    cell = """
        os.makedirs("ckpt", exist_ok=True)
        open("ckpt/starts", "a").write("x")
        fit(1)
        print("said once")
    """
    run = started(engine, cell, cwd=str(tmp_path))
    (said,) = ended(engine, run)
    assert said.startswith("same as one process (")
    assert "first 4 steps" in said
    assert (tmp_path / "ckpt/starts").read_text() == "xx"  # of two ranks
    assert text(engine.events(run), 0) == text(engine.events(run), 1) == "said once\n"


def test_what_starts_a_process_is_not_run_twice(engine: Cluster) -> None:
    run = started(engine, 'os.posix_spawn("/bin/true", ["true"], {})\nfit(1)')
    (said,) = ended(engine, run)
    line = 2 + SETUP.count("\n")  # the magic stands on the first
    assert said == f"not checked against one process: line {line} starts a process"


def test_a_run_that_splits_nothing_has_no_shadow(engine: Cluster) -> None:
    (said,) = ended(engine, started(engine, "pass"))
    assert "no batch was split" in said
    assert ended(engine, started(engine, "pass", check=None)) == []
    (said,) = ended(engine, started(engine, "fit(1)", strategy="none"))
    assert "--strategy none" in said
    assert ended(engine, started(engine, "fit(1)", check=False)) == []


def test_the_death_of_the_shadow_is_not_the_runs(engine: Cluster, tmp_path: Path) -> None:
    run = started(engine, "fit(1, lambda: time.sleep(0.02))\n" + HOLDS, cwd=str(tmp_path))
    shadow = until_there_is_a_shadow(engine, run)
    assert os.sched_getscheduler(shadow) == os.SCHED_IDLE or os.getpriority(os.PRIO_PROCESS, shadow) == 19
    os.kill(shadow, signal.SIGKILL)
    (tmp_path / "go").touch()
    (said,) = ended(engine, run)
    assert said.endswith("was killed by signal 9")


def test_a_stop_ends_the_shadow_at_once(engine: Cluster) -> None:
    run = started(engine, SLOW + "fit(10_000, lambda: time.sleep(0.01))")
    until_there_is_a_shadow(engine, run)
    engine.stop(run, "stop")
    assert ended(engine, run, kind="stopped") == []
    assert shadows(run) == []


def test_a_failure_ends_the_shadow_at_once(engine: Cluster) -> None:
    run = started(engine, SLOW + "fit(1)\n1 / 0")
    assert ended(engine, run, kind="error") == []


def test_the_end_of_a_run_waits_a_bounded_time(engine: Cluster) -> None:
    began = time.monotonic()
    run = started(engine, SLOW + "fit(1)", check=None)
    assert ended(engine, run) == []
    assert 1.0 < time.monotonic() - began < 30.0  # the shadow sleeps for a minute


def test_what_the_cell_raises_alone_is_no_verdict(engine: Cluster) -> None:
    run = started(engine, 'if "JUPYTER_TRAIN_SHADOW" in os.environ: raise ValueError("alone")\nfit(1)')
    (said,) = ended(engine, run)
    assert said.endswith("the cell raised ValueError in the process that runs it alone: alone")


@pytest.mark.parametrize(
    ("run_s", "is_asked", "waits"),
    [(0.5, False, 1.0), (20.0, False, 2.0), (900.0, False, 3.0), (0.5, True, 20.0)],
)
def test_the_end_waits_a_tenth_of_the_run_within_bounds(run_s: float, is_asked: bool, waits: float) -> None:
    assert wait_s(run_s, is_asked=is_asked) == waits


def test_patience_grows_with_the_way_to_the_first_step_and_ends() -> None:
    assert patience_s(0.0) < patience_s(30.0) < patience_s(3600.0) == patience_s(7200.0)
