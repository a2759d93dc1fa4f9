"""What may be imported where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_train import runtime
from jupyter_train.runtime.zygote import PACKAGES_IMPORTED_FIRST


@pytest.mark.parametrize("module", ["agent", "train", "launcher", "job"])
def test_scheduler_worker_and_kernel_do_not_import_torch_for_us(module: str) -> None:
    program = f"import sys, jupyter_train.runtime.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_package_of_the_runtime_is_imported_before_ranks_are_forked() -> None:
    """What a rank imports itself, each of them pays for at every start."""
    folders = {file.parent.name for file in Path(runtime.__path__[0]).glob("*/__init__.py")}
    assert {f"jupyter_train.runtime.{name}" for name in folders} <= {*PACKAGES_IMPORTED_FIRST}
