"""Two ranks on a real cluster: what a cell can do there, and what comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from jupyter_train.home import run_folder
from jupyter_train.record import EventKind
from jupyter_train.transport.result import apply_result
from tests.runtime.kit import Cluster, processes_of, text

pytestmark = pytest.mark.cluster

DONE = {"kind": "done", "signal": 0, "code": 0, "text": "", "out_of_memory": None}


def run(engine: Cluster, source: str, **more: Any) -> tuple[str, dict[int, dict[str, Any]]]:
    run_id = engine.launch(source, **more)
    return run_id, engine.wait_exits(run_id, more.get("ranks", 2))


def error_of(engine: Cluster, run_id: str, rank: int = 0) -> dict[str, Any]:
    (event,) = [e for e in engine.events(run_id) if e.kind is EventKind.ERROR and e.rank == rank]
    return dict(event.payload)


def test_ranks_meet_print_log_and_leave_nothing(engine: Cluster) -> None:
    run_id, causes = run(
        engine,
        "import torch\n"
        "total = train.sum(torch.tensor(train.rank + 1.0))\n"
        "print('rank', train.rank, 'of', train.world_size, 'sum', total.item())\n"
        "for step in range(1000):\n"
        "    train.log(value=step / 2, step=step)\n",
    )
    assert causes == {0: DONE, 1: DONE}
    events = engine.events(run_id)
    for rank in (0, 1):
        assert text(events, rank) == f"rank {rank} of 2 sum 3.0\n"
        columns = [
            e.payload["columns"]["value"] for e in events if e.kind is EventKind.METRICS and e.rank == rank
        ]
        assert np.concatenate([c["value"] for c in columns]).tolist() == [i / 2 for i in range(1000)]
        numbers = [e.rank_seq for e in events if e.rank == rank and e.rank_seq]
        assert numbers == list(range(1, len(numbers) + 1))
    assert [each["status"] for each in engine.told(run_id)].count("ready") == 2
    assert processes_of(run_id) == []


def test_what_a_cell_assigns_and_changes_comes_back(engine: Cluster) -> None:
    model = torch.nn.Linear(2, 1)
    namespace = {"model": model, "torch": torch, "seen": [1]}
    run_id, _ = run(
        engine,
        "with torch.no_grad():\n    model.weight.fill_(3.0)\nseen.append(train.rank)\nanswer = 42",
        namespace=namespace,
    )
    (artifact,) = [e.payload for e in engine.events(run_id) if e.kind is EventKind.ARTIFACT]
    assert artifact["names"] == ["answer"]
    path = run_folder(run_id, engine.home) / artifact["file"]
    apply_result(path, engine.capture, namespace)
    assert namespace["answer"] == 42
    assert namespace["seen"] == [1, 0]
    assert namespace["model"] is model
    assert model.weight.tolist() == [[3.0, 3.0]]
    got = engine.call(
        engine.workers[0],
        "train_artifact_get",
        run_id=run_id,
        name=artifact["file"],
        offset=0,
        length=1 << 20,
    )
    assert got == {"data": path.read_bytes(), "total": path.stat().st_size}


def test_a_cell_runs_as_in_a_notebook(engine: Cluster) -> None:
    run_id, _ = run(
        engine,
        "import sys, os, asyncio\n"
        "await asyncio.sleep(0)\n"
        "print(__name__, sys.argv, os.getcwd(), os.environ['GIVEN'], sys.path[0])\n"
        "1 + 1",
        cwd="/",
        sys_path=("/from/the/notebook",),
        environment={"GIVEN": "value"},
    )
    events = engine.events(run_id)
    assert text(events, 1) == "__main__ [''] / value /from/the/notebook\n"
    (shown,) = (e for e in events if e.payload.get("stream") == "display")
    assert (shown.rank, shown.payload["data"], shown.payload["result"]) == (0, {"text/plain": "2"}, True)


def test_torch_distributed_can_be_used_by_hand(engine: Cluster) -> None:
    run_id, causes = run(
        engine,
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "x = torch.ones(1)\n"
        "dist.all_reduce(x)\n"
        "print(dist.get_rank(), x.item())",
    )
    assert causes == {0: DONE, 1: DONE}
    assert text(engine.events(run_id), 1) == "1 2.0\n"


def test_ranks_start_alike(engine: Cluster) -> None:
    run_id, _ = run(
        engine,
        "import random, numpy as np, torch\n"
        "print(random.random(), np.random.rand(), torch.rand(1).item(), hash('a'), list({'a', 'b', 'c', 'd'}))",
    )
    events = engine.events(run_id)
    assert text(events, 0) == text(events, 1) != ""


def test_what_c_code_and_children_write_is_logged_too(engine: Cluster) -> None:
    run_id, _ = run(
        engine,
        "import os, sys, subprocess\n"
        "os.system('echo from the shell; echo trouble >&2')\n"
        "subprocess.run(['echo', 'by descriptor'], stdout=sys.stdout, check=True)\n"
        "sys.stdout.buffer.write(b'bytes\\n')",
    )
    events = engine.events(run_id)
    assert "from the shell\nby descriptor\nbytes\n" in text(events, 1)
    assert text(events, 1, "stderr") == "trouble\n"


def test_loader_workers_live_print_and_go(engine: Cluster) -> None:
    run_id, causes = run(
        engine,
        "from torch.utils.data import DataLoader, Dataset\n"
        "class Numbers(Dataset):\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, i):\n"
        "        print('loading', i)\n"
        "        return i\n"
        "loader = DataLoader(Numbers(), batch_size=4, num_workers=2)\n"
        "print(sum(int(batch.sum()) for batch in loader))",
    )
    assert causes == {0: DONE, 1: DONE}
    told = text(engine.events(run_id), 1)
    assert "28\n" in told
    assert all(f"loading {i}\n" in told for i in range(8))
    assert processes_of(run_id) == []


def test_input_says_that_nobody_can_answer(engine: Cluster) -> None:
    run_id, _ = run(engine, "input('name?')", ranks=1)
    assert "away from the keyboard" in error_of(engine, run_id)["message"]


def test_an_error_is_told_with_the_cells_own_lines(engine: Cluster) -> None:
    run_id, causes = run(engine, "def half(x):\n    return x / 0\n\nhalf(train.rank)", ranks=1)
    assert causes[0]["kind"] == "error"
    error = error_of(engine, run_id)
    assert (error["type"], error["module"], error["secondary"]) == ("ZeroDivisionError", "builtins", False)
    assert [(f["line"], f["name"], f["source"].strip()) for f in error["frames"]] == [
        (5, "<module>", "half(train.rank)"),
        (3, "half", "return x / 0"),
    ]


def test_the_exception_itself_travels_from_any_rank(engine: Cluster) -> None:
    # Met first: a rank that fails before the other has found it ends alone, and nobody stops the other here.
    run_id, _ = run(engine, "train.sum(0)\nbefore = 1\nraise KeyError('k' * (train.rank + 1))")
    artifact = next(e.payload for e in engine.events(run_id) if e.kind is EventKind.ARTIFACT)
    files = {0: artifact["file"], 1: error_of(engine, run_id, 1)["file"]}
    for rank, file in files.items():
        namespace: dict[str, Any] = {}
        applied = apply_result(run_folder(run_id, engine.home) / file, engine.capture, namespace)
        assert repr(applied.error) == repr(KeyError("k" * (rank + 1)))
        assert namespace == ({"before": 1} if rank == 0 else {})


def test_leaving_quietly_is_no_error(engine: Cluster) -> None:
    run_id, causes = run(engine, "import sys\nx = 1\nsys.exit(0)")
    assert causes == {0: DONE, 1: DONE}
    assert not [e for e in engine.events(run_id) if e.kind is EventKind.ERROR]


def test_names_to_keep_that_the_cell_did_not_bind_are_said(engine: Cluster) -> None:
    run_id, _ = run(engine, "x = 1", keep=("x", "weights"))
    (remark,) = [e.payload["text"] for e in engine.events(run_id) if e.payload.get("stream") == "remark"]
    assert remark == "--keep asks for weights, which the cell did not bind"


def test_leaving_with_a_code_is_an_error(engine: Cluster) -> None:
    run_id, causes = run(engine, "import sys\nsys.exit(3)", ranks=1)
    assert causes[0]["kind"] == "error"
    assert error_of(engine, run_id)["cause"] == "exit"


def test_a_process_that_ends_itself_is_told_with_its_code(engine: Cluster) -> None:
    _, causes = run(engine, "import os\nos._exit(4)", ranks=1)
    assert (causes[0]["kind"], causes[0]["code"]) == ("exit", 4)


def test_a_crash_is_told_with_the_line_that_caused_it(engine: Cluster) -> None:
    _, causes = run(engine, "import ctypes\nctypes.string_at(0)", ranks=1)
    assert (causes[0]["kind"], causes[0]["signal"]) == ("signal", 11)
    assert "Segmentation fault" in causes[0]["text"]
    assert "line 3" in causes[0]["text"]


def test_what_is_registered_for_the_end_runs(engine: Cluster) -> None:
    run_id, _ = run(engine, "import atexit\n_ = atexit.register(print, 'at the end')", ranks=1)
    assert text(engine.events(run_id), 0) == "at the end\n"


def test_captured_data_that_is_not_there_is_said_so(engine: Cluster) -> None:
    from jupyter_train.record import ContentRef

    run_id, _ = run(engine, "1", ranks=1, capture=(ContentRef(key="0" * 32, size_bytes=1),))
    error = error_of(engine, run_id)
    assert error["type"] == "CaptureError"
    assert "run the cell again" in error["message"]


def test_a_rank_that_is_through_early_waits_for_those_that_need_its_store(engine: Cluster) -> None:
    alive = (
        "import os, time\npids = train.gather(os.getpid())\ntime.sleep(0.5 * train.rank)\nos.kill(pids[0], 0)"
    )
    _, causes = run(engine, alive)
    assert causes == {0: DONE, 1: DONE}, "rank 1 finds no rank 0 any more"


def test_content_travels_in_chunks_to_a_host_that_lacks_it(engine: Cluster) -> None:
    from xxhash import xxh3_128_hexdigest

    data = bytes(range(256)) * 100
    key = xxh3_128_hexdigest(data)
    worker = engine.workers[1]
    assert list(engine.call(worker, "train_content_missing", keys=[key])["missing"]) == [key]
    for at in range(0, len(data), 10_000):
        chunk = data[at : at + 10_000]
        engine.call(worker, "train_content_put", key=key, offset=at, total=len(data), data=chunk)
    answer = engine.call(worker, "train_content_missing", keys=[key])
    assert (answer["folder"], list(answer["missing"])) == (engine.content.folder_id(), [])
    assert bytes(engine.content.map(key)) == data


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", ".hidden", "a/b"])
def test_only_files_of_the_run_are_given_out(engine: Cluster, name: str) -> None:
    with pytest.raises(Exception, match="not the name"):  # Dask sends the text of an error
        engine.call(
            engine.workers[0],
            "train_artifact_get",
            run_id="20261122-101010-abcdef",
            name=name,
            offset=0,
            length=1,
        )


def test_usage_of_a_rank_with_its_children_is_told_every_second(engine: Cluster) -> None:
    run_id, _ = run(
        engine,
        "import subprocess, time\n"
        "child = subprocess.Popen(['sh', '-c', 'while :; do :; done'])\n"
        "time.sleep(2.6)",
        ranks=1,
    )
    usage = [e for e in engine.events(run_id) if e.kind is EventKind.USAGE]
    assert len(usage) >= 2
    assert all(e.rank == 0 and e.rank_seq == 0 for e in usage)
    assert usage[-1].payload["cpu_cores"] > 0.05
    assert usage[-1].payload["memory_bytes"] > 50e6
    assert usage[-1].payload["worker"] == engine.workers[0]


def test_dask_sees_a_worker_with_a_rank_as_busy_and_free_afterwards(engine: Cluster) -> None:
    def processing() -> dict[str, int]:
        return engine.scheduler(  # type: ignore[no-any-return]
            lambda dask_scheduler: {a: len(w.processing) for a, w in dask_scheduler.workers.items()}
        )

    run_id = engine.launch("import time\ntime.sleep(60)")
    engine.wait_running(run_id)
    engine.wait(lambda: set(processing().values()) == {1})
    engine.stop(run_id, "kill")
    engine.wait_exits(run_id)
    engine.wait(lambda: set(processing().values()) == {0})
    engine.wait(lambda: engine.scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0)


def test_spools_are_readable_while_the_scheduler_may_miss_events(engine: Cluster) -> None:
    run_id, _ = run(engine, "print('kept')", ranks=1)
    left = engine.call(engine.workers[1], "train_spool", run_id=run_id, attempt=1)["events"]
    sent = [e for e in engine.events(run_id) if e.rank_seq]
    assert len(left) == len(sent)


TRAINING = """
import time, torch
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
data = TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
steps = 0
for epoch in range(EPOCHS):
    for x, y in DataLoader(data, batch_size=8, shuffle=True):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        steps += 1
        BODY
"""


def training(*, epochs: int, body: str = "pass") -> str:
    return TRAINING.replace("EPOCHS", str(epochs)).replace("BODY", body)


def test_a_plain_loop_is_trained_data_parallel_with_curves(engine: Cluster) -> None:
    run_id, causes = run(engine, training(epochs=2), strategy="auto")
    assert causes == {0: DONE, 1: DONE}
    columns = [e.payload["columns"] for e in engine.events(run_id) if e.kind is EventKind.METRICS]
    losses = [v for c in columns if "loss" in c for v in c["loss"]["value"]]
    assert len(losses) == 16
    namespace: dict[str, Any] = {}
    (artifact,) = [e.payload for e in engine.events(run_id) if e.kind is EventKind.ARTIFACT]
    apply_result(run_folder(run_id, engine.home) / artifact["file"], engine.capture, namespace)
    assert namespace["steps"] == 16
    assert isinstance(namespace["model"], torch.nn.Linear)


def test_a_stop_ends_all_ranks_after_the_same_step(engine: Cluster) -> None:
    run_id = engine.launch(training(epochs=100_000, body="train.log(done=steps)"), strategy="auto")
    engine.wait_running(run_id)
    engine.wait(lambda: any(e.kind is EventKind.METRICS for e in engine.events(run_id)))
    engine.stop(run_id, "stop")
    causes = engine.wait_exits(run_id)
    assert {cause["kind"] for cause in causes.values()} == {"stopped"}
    last = {}
    for event in engine.events(run_id):
        if event.kind is EventKind.METRICS and "done" in event.payload["columns"]:
            last[event.rank] = event.payload["columns"]["done"]["value"][-1]
    assert last[0] == last[1]
    exits = [each["at"] for each in engine.told(run_id) if each["status"] == "exited"]
    assert max(exits) - min(exits) < 1.9


def test_of_two_errors_the_one_that_only_followed_is_marked(engine: Cluster) -> None:
    body = "if steps == 3 and train.rank == 1: raise ValueError('bad batch')"
    run_id, _ = run(engine, training(epochs=5, body=body), strategy="auto")
    assert error_of(engine, run_id, 1)["secondary"] is False
    assert error_of(engine, run_id, 1)["type"] == "ValueError"
    followed = [e.payload for e in engine.events(run_id) if e.kind is EventKind.ERROR and e.rank == 0]
    assert all(payload["secondary"] for payload in followed)
    assert len(followed) == 1


def test_an_agent_that_is_registered_twice_keeps_its_ranks(engine: Cluster) -> None:
    """As on a worker that joins while another kernel registers it."""
    run_id = engine.launch("import time\nwhile not train.should_stop: time.sleep(0.01)\nprint('done')")
    engine.wait_running(run_id)

    async def register_again(dask_worker: Any) -> str:
        import asyncio

        from jupyter_train.runtime.agent import NAME, Agent

        for _ in range(2):
            await dask_worker.plugin_add(plugin=Agent(), name=NAME)
        await asyncio.sleep(1.5)
        return str(dask_worker.plugins[NAME]._office is not None)

    assert set(engine.client.run(register_again).values()) == {"True"}
    engine.stop(run_id, "stop")
    assert {cause["kind"] for cause in engine.wait_exits(run_id).values()} == {"done"}


def test_rank_0_without_its_meeting_point_is_refused_at_once(engine: Cluster) -> None:
    reply = engine.call(
        engine.workers[0],
        "train_launch",
        run_id="20260101-000000-aaaaaa",
        attempt=1,
        spec=engine.spec("1"),
        ranks=[[0, 0]],
        world_size=1,
        local_world_size=1,
        master_host="127.0.0.1",
        master_port=1,
    )
    assert reply["error"]["type"] == "RunFailed"
    assert "no longer holds" in reply["error"]["message"]
