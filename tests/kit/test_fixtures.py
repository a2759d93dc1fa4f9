"""What every test may ask for is there: a cluster that tests share, and a kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit import processes

if TYPE_CHECKING:
    from jupyter_train.cluster import Connection
    from tests.e2e.kit import Notebook

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_the_shared_cluster_has_two_workers_and_its_home_is_ours(
    local_cluster: Connection, home: Path
) -> None:
    assert len(local_cluster.workers()) == 2
    assert os.environ["JUPYTER_TRAIN_HOME"] == str(home)
    assert any((home / "clusters").iterdir())
    assert processes.processes_of_home(home)


def test_a_kernel_works_for_the_home_of_its_test(kernel: Notebook, home: Path) -> None:
    assert kernel.run("import os; print(os.environ['JUPYTER_TRAIN_HOME'])").stdout.strip() == str(home)
    assert kernel.run("1 / 0").error is not None
