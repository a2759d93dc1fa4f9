"""Runs of a cluster that keeps its journal on another disk: their history is here when the cluster is gone, and another goes on with them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import jupyter_train as jt
from jupyter_train import cluster
from jupyter_train.cluster import connect
from jupyter_train.cluster.session import Session
from jupyter_train.home import journals_folder
from jupyter_train.notebook.session import current_session
from jupyter_train.record import RunState
from jupyter_train.store import Store
from tests.e2e.kit import processes_of_runs, wait_until
from tests.e2e.test_other_clusters import dask_of_the_command_line

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def fresh_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Connections of this test's own: other tests go on with the cluster that they share."""
    monkeypatch.setattr(connect, "_session", Session())
    yield
    cluster.close()
    current_session().runs.clear()


def fit(go: str) -> list[float]:
    """Four epochs of a small loop; in the third it waits for the file ``go``."""
    import time

    from jupyter_train import train

    torch.manual_seed(1)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for epoch in train.epochs(4):
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(torch.rand(8, 4)).square().mean()
            loss.backward()
            optimizer.step()
        train.log(own=loss.item())
        print("epoch", epoch, flush=True)
        train.checkpoint(model=model, optimizer=optimizer)
        while epoch == 2 and not os.path.exists(go):
            time.sleep(0.01)
    return [float(p) for p in torch.cat([p.detach().flatten() for p in model.parameters()])]


def started(address: str) -> None:
    connection = cluster.use(address)
    connection.client.wait_for_workers(1, 60)


@pytest.mark.usefixtures("fresh_session")
def test_what_a_far_cluster_told_outlives_its_kill_9_and_another_one_goes_on(tmp_path: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []
    far, go, store = tmp_path / "far", tmp_path / "go", Store()
    go.touch()
    with dask_of_the_command_line(tmp_path, far, "1h", workers=1, processes=processes) as address:
        started(address)
        calm = jt.submit(fit, str(go), ranks=1, name="calm")
        value = calm.value
        here = [path.name for path in journals_folder().glob("*.sqlite")]
        assert all(name.endswith(".copy.sqlite") for name in here), "the journal itself is elsewhere"
        go.unlink()
        cut = jt.submit(fit, str(go), ranks=1, name="cut")
        wait_until(lambda: cut.is_over or ("epoch 2" in cut.log() and len(cut.view.checkpoints) >= 2), 60)
        seen = cut.view
        assert seen.state is RunState.RUNNING
        wait_until(lambda: store.summary(cut.id).seq >= seen.seq, 30)
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(30)
        wait_until(lambda: not processes_of_runs(far), 30)
    wait_until(lambda: store.summary(cut.id).state is RunState.LOST, 60)
    assert store.summary(calm.id).state is RunState.SUCCEEDED
    lost = store.view(cut.id)
    assert f"%train cluster use {address}" in lost.reason
    assert lost.checkpoints[: len(seen.checkpoints)] == seen.checkpoints
    whole, part = store.view(calm.id).curves, lost.curves
    for name in ("loss", "own", "lr"):
        values = part[name][0].values
        assert len(values) >= len(seen.curves[name][0].values)
        assert values.tolist() == whole[name][0].values[: len(values)].tolist()
    current_session().runs.clear()
    cluster.close()
    assert jt.run("calm").log() == "epoch 0\nepoch 1\nepoch 2\nepoch 3\n"
    assert jt.run("cut").log() == "epoch 0\nepoch 1\nepoch 2\n"

    go.touch()
    (tmp_path / "scheduler.json").unlink()
    with dask_of_the_command_line(tmp_path, far, "1h", workers=1) as address:
        started(address)
        resumed = jt.submit(fit, str(go), ranks=1, name="resumed", resume="cut")
        assert resumed.value == value
        assert resumed.log() == "epoch 2\nepoch 3\n"
        cluster.close()
