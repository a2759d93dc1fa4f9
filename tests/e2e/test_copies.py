"""Runs of a cluster that keeps its journal on another disk: their history is here when the cluster is gone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import jupyter_train as jt
from jupyter_train import cluster
from jupyter_train.home import journals_folder
from jupyter_train.notebook.session import current_session
from jupyter_train.record import RunState
from jupyter_train.store import Store
from tests.e2e.kit import processes_of_runs, wait_until
from tests.e2e.test_other_clusters import dask_of_the_command_line

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def fresh_session() -> Iterator[None]:
    yield
    cluster.close()
    current_session().runs.clear()


def logs(values: int, rest_s: float) -> float:
    """What the runs do: log so many values, print a line, and stay."""
    from jupyter_train import train

    for value in range(values):
        train.log(step=value, loss=1 / (1 + value))
    print("all logged", flush=True)
    time.sleep(rest_s)
    return 0.5


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("fresh_session")
def test_what_a_far_cluster_told_outlives_its_kill_9(home: Path, tmp_path: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []
    far, store = tmp_path / "far", Store()
    with dask_of_the_command_line(tmp_path, far, "1h", workers=1, processes=processes) as address:
        connection = cluster.use(address)
        connection.client.wait_for_workers(1, 60)
        done = jt.submit(logs, 200, 0.0, ranks=1, name="done")
        assert done.value == 0.5
        here = [path.name for path in journals_folder().glob("*.sqlite")]
        assert all(name.endswith(".copy.sqlite") for name in here), "the journal itself is elsewhere"
        wait_until(lambda: not connection.control.hello()["unread"], 30)
        cut = jt.submit(logs, 50, 3600.0, ranks=1, name="cut")
        wait_until(lambda: {r.name: r.state for r in store.runs()}.get("cut") is RunState.RUNNING, 60)
        wait_until(lambda: "all logged" in "".join(map(str, store.view(cut.id).log)), 30)
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(30)
        wait_until(lambda: not processes_of_runs(far), 30)
    states = {r.name: r.state for r in store.runs()}
    assert states == {"done": RunState.SUCCEEDED, "cut": RunState.LOST}
    assert store.problems == ()
    for run, values in ((done, 200), (cut, 50)):
        curve = store.view(run.id).curves["loss"][0]
        assert np.array_equal(curve.steps, np.arange(values))
        assert np.array_equal(curve.values, 1 / (1 + np.arange(values)))
    current_session().runs.clear()
    assert jt.run("done").state is RunState.SUCCEEDED
    assert "all logged" in jt.run("cut").log()
