"""State of which every rank has a part is written by all of them, and read by any number."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint  # here, so that the forked ranks have it
import torch.distributed.fsdp
import torch.distributed.tensor

from jupyter_train.errors import CheckpointUnreadable
from jupyter_train.record.checkpoint import ResumePoint, checkpoint_part
from jupyter_train.runtime.checkpoint.keeping import Keeping
from jupyter_train.runtime.checkpoint.loading import load_all
from jupyter_train.runtime.checkpoint.reader import contents, read_file, read_point
from jupyter_train.runtime.checkpoint.sharded import agree
from jupyter_train.runtime.checkpoint.state import Snapshot
from tests.runtime.parallel.ranks import Outcome, _in_processes

RUN = "20261122-153000-ab12cd"


def _model(seed: int) -> tuple[Any, Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(7, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def _train(model: Any, optimizer: Any, rank: int, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((4, 7), 1.0 + rank + step)).pow(2).sum().backward()
        optimizer.step()


def _rank(home: Path, rank: int, port: int) -> Iterator[Outcome]:
    import torch.distributed as dist

    os.environ.update(GLOO_SOCKET_IFNAME="lo")
    store = dist.TCPStore("127.0.0.1", port, 2, rank == 0, timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    told: list[Any] = []
    remarks: list[str] = []
    keeping = Keeping(
        folder=home / "runs" / RUN,
        attempt=1,
        rank=rank,
        world_size=2,
        worker=f"w{rank}",
        tell=told.append,
        remark=remarks.append,
        keep_last=1,
    )
    model, optimizer = _model(1)
    _train(model, optimizer, rank, 3)
    for number in (1, 2, 3):
        shared = {"model": model, "optimizer": optimizer}
        keeping.keep(Snapshot(number=number, step=3 + number, shared=shared, own={"rank": rank}))
        _train(model, optimizer, rank, 1)
    keeping.close(60)
    dist.barrier()
    parts = [checkpoint_part(one) for one in told if "begun" not in one]
    files = ("checkpoint-1-3.pt", "checkpoint-1-3.1.pt")
    saved = read_point(ResumePoint(run_id=RUN, attempt=1, number=3, step=6, files=files), rank, home)
    again, its_optimizer = _model(2)
    load_all({"model": again, "optimizer": its_optimizer}, saved.shared)
    _train(again, its_optimizer, rank, 1)
    same = [
        torch.equal(one.to_local(), other.to_local())
        for one, other in zip(model.parameters(), again.parameters(), strict=True)
    ]
    whole = {name: one.full_tensor().detach().numpy() for name, one in model.state_dict().items()}
    out = {"numbers": [one.number for one in parts if not one.dropped], "same": same, "own": saved.own}
    yield Outcome(out=out, remarks=remarks, names=whole)
    store.add("done", 1)
    while rank == 0 and store.add("done", 0) < 2:
        threading.Event().wait(0.005)  # rank 0 serves the store


class Table:
    """Where ranks, as threads, tell their numbers."""

    def __init__(self, ranks: int) -> None:
        self.numbers = [0] * ranks
        self.barrier = threading.Barrier(ranks, timeout=60)

    def say(self, rank: int, number: int) -> list[int]:
        self.numbers[rank] = number
        self.barrier.wait()
        told = list(self.numbers)
        self.barrier.wait()
        return told


@pytest.mark.parametrize(
    ("waiting", "agreed"),
    [
        ([[5], [5]], 5),
        ([[1, 2, 3], [3]], 3),
        ([[1, 3, 4], [2, 4], [1, 2, 4]], 4),  # who skipped the number that another has goes on to the next
        ([[1, 3, 4], [2, 4]], 4),
        ([[1], [2]], -1),  # the first rank's cell is over: it has nothing newer
    ],
)
def test_ranks_that_skipped_different_snapshots_write_one_that_all_have(
    waiting: list[list[int]], agreed: int
) -> None:
    table = Table(len(waiting))
    found: list[int | None] = [None] * len(waiting)

    def rank(number: int) -> None:
        left = list(waiting[number])

        def newer(least: int) -> int:
            while left and left[0] < least:
                left.pop(0)
            return left[0] if left else -1

        found[number] = agree(lambda told: table.say(number, told), left[0], newer)

    threads = [threading.Thread(target=rank, args=(k,), name=f"rank {k}") for k in range(len(waiting))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [agreed] * len(waiting)


def test_a_sharded_model_goes_on_where_it_stood_and_is_read_whole_by_one_process(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runs = [lambda rank=rank: _rank(tmp_path, rank, port) for rank in (0, 1)]
    outcomes = [of_rank[0] for of_rank in _in_processes(runs, 1, 100.0)]
    for rank, outcome in enumerate(outcomes):
        assert not outcome.error, outcome.error
        assert outcome.remarks == []
        assert outcome.out["numbers"][-1] == 3
        assert all(outcome.out["same"])
        assert outcome.out["own"] == {"rank": rank}
    assert outcomes[0].out["numbers"] == outcomes[1].out["numbers"]
    folder = tmp_path / "runs" / RUN
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]

    loaded = contents(folder / "checkpoint-1-3.pt")
    model = torch.nn.Sequential(torch.nn.Linear(7, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    model.load_state_dict(loaded["model"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    optimizer.load_state_dict(loaded["optimizer"])
    assert {one["step"].item() for one in loaded["optimizer"]["state"].values()} == {5.0}

    alone = torch.nn.Sequential(torch.nn.Linear(7, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    its_optimizer = torch.optim.Adam(alone.parameters(), lr=0.1)
    saved = read_file(folder / "checkpoint-1-3.pt")["shared"]
    load_all({"model": alone, "optimizer": its_optimizer}, saved)
    for one, other in zip(alone.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(its_optimizer.state[one]["exp_avg"], optimizer.state[other]["exp_avg"])

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(folder / "was here"),)

    (folder / "checkpoint-1-3.dcp" / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointUnreadable, match="none of its own classes"):
        contents(folder / "checkpoint-1-3.pt")
    assert not (folder / "was here").exists()
