"""Dask's own scheduler and workers, without what a local cluster has no use for."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_train.cluster import Connection

pytestmark = pytest.mark.cluster


def kept_by_worker(dask_worker: Any) -> int:
    return len(dask_worker.digests_total)


def test_dask_keeps_nothing_of_each_batch_of_tasks(local_cluster: Connection) -> None:
    client = local_cluster.client
    worker = str(local_cluster.workers()[0]["address"])

    def after_tasks(count: int) -> int:
        for i in range(count):
            assert client.submit(int, i, key=f"kept-{i}", workers=[worker]).result() == i
        return int(client.run(kept_by_worker, workers=[worker])[worker])

    before = after_tasks(3)
    assert after_tasks(8) < before + 8
    assert "spans" not in client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.extensions))
