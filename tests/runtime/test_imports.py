"""What may be imported where."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["agent", "train", "launcher", "job"])
def test_scheduler_worker_and_kernel_do_not_import_torch_for_us(module: str) -> None:
    program = f"import sys, jupyter_train.runtime.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
