"""What is said when memory has run out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jupyter_train.runtime.cell import compile_cell, execute
from jupyter_train.runtime.failure import describe
from jupyter_train.runtime.memory import ran_out_of_memory
from jupyter_train.runtime.oom import oom_kills


def fail(source: str, **names: Any) -> BaseException:
    try:
        execute(compile_cell(source, file="<train x>", first_line=2), {"__name__": "__main__", **names})
    except BaseException as error:
        trace = error.__traceback__
        return error.with_traceback(trace and trace.tb_next)  # without this very frame, as in a rank
    raise AssertionError("it did not fail")


TRAINED = """
model = torch.nn.Linear(1000, 1000)
opt = torch.optim.Adam(model.parameters())
model(torch.ones(1, 1000)).sum().backward()
opt.step()
same = model.weight
def step(batch):
    raise MemoryError
step(np.zeros(25_000_000, np.uint8))
"""


def test_model_optimizer_and_batch_are_named_with_their_sizes() -> None:
    told = describe(fail(TRAINED, torch=torch, np=np))["memory"]
    assert told.split(", ") == ["batch 25.0 MB", "opt 8.0 MB", "model 8.0 MB"]


def test_what_is_one_thing_counts_once() -> None:
    whole = np.zeros(4_000_000, np.uint8)
    error = fail("raise MemoryError", whole=whole, part=whole[:2_000_000], again=[whole])
    assert describe(error)["memory"] == "whole 4.0 MB"


def test_many_names_are_summed_up() -> None:
    error = fail("raise MemoryError", **{f"n{i}": np.zeros(10_000 * (i + 1)) for i in range(8)})
    told = describe(error)["memory"]
    assert told.startswith("n7 640 kB, n6 560 kB")
    assert told.endswith("3 more 480 kB")


class OutOfMemoryError(RuntimeError):
    """As torch.cuda's: what it says has changed over the releases, its name has not."""


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (np._core._exceptions._ArrayMemoryError((1,), np.dtype("u1")), True),  # type: ignore[attr-defined]
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (OutOfMemoryError("HIP says no"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_about_memory(error: BaseException, is_memory: bool) -> None:
    assert ran_out_of_memory(error) is is_memory
    assert ("memory" in describe(error)) is is_memory


def host(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_groups_own_count_comes_before_the_hosts(tmp_path: Path) -> None:
    vmstat = {"proc/vmstat": "pgfault 1\noom_kill 7\n"}
    assert oom_kills(host(tmp_path / "plain", vmstat)) == 7
    v2 = {
        **vmstat,
        "proc/self/cgroup": "0::/user/one\n",
        "sys/fs/cgroup/user/one/memory.events": "oom 2\noom_kill 2\n",
    }
    assert oom_kills(host(tmp_path / "v2", v2)) == 2
    v1 = {
        **vmstat,
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/a:b\n0::/\n",
        "sys/fs/cgroup/memory/a:b/memory.oom_control": "under_oom 0\noom_kill 3\n",
    }
    assert oom_kills(host(tmp_path / "v1", v1)) == 3


def test_where_nothing_is_counted_nothing_is_claimed(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None
