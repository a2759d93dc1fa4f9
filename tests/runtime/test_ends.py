"""How ranks end when they do not end by themselves, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psutil
import pytest

from jupyter_train.record import EventKind
from jupyter_train.runtime.processes import is_running
from tests.runtime.kit import Cluster, processes_of, text

pytestmark = pytest.mark.cluster

STUCK = {
    "asleep": "import time\ntime.sleep(600)",
    "computing": "import torch\na = torch.randn(300, 300)\nwhile True:\n    a = a @ a / 300",
    "in C": "import ctypes, time\nctypes.CDLL(None).sleep(600)\ntime.sleep(600)",
    "in C with the interpreter's lock": "import ctypes, time\nctypes.PyDLL(None).sleep(600)\ntime.sleep(600)",
    "in a regular expression": "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
    "waiting for a lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "waiting for the other rank": "import time\nif train.rank == 0:\n    train.sum(1)\ntime.sleep(600)",
}

SLEEP = ["sleep", f"600.{os.getpid()}"]  # of this run of the tests: others may go on beside it
CHILDREN = f"""
import os, subprocess, time
subprocess.Popen({SLEEP})
subprocess.Popen({SLEEP}, start_new_session=True)
subprocess.Popen({SLEEP}, start_new_session=True, env={{}})
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
print("children")
"""


def sleepers() -> set[int]:
    return {p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == SLEEP}


def wait_gone(run_id: str, timeout_s: float = 2.0) -> None:
    deadline = time.monotonic() + timeout_s
    while left := [pid for pid in processes_of(run_id) if is_running(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.005)


def running(engine: Cluster, source: str) -> str:
    run_id = engine.launch(source)
    engine.wait_running(run_id)
    return run_id


@pytest.mark.parametrize("where", STUCK)
def test_a_rank_that_is_stuck_is_unwound_and_its_names_come_back(engine: Cluster, where: str) -> None:
    run_id = running(engine, "so_far = 1\n" + STUCK[where])
    engine.stop(run_id, "stop")
    causes = engine.wait_exits(run_id)
    assert {cause["kind"] for cause in causes.values()} == {"stopped"}
    assert not [e for e in engine.events(run_id) if e.kind is EventKind.ERROR]
    if where != "waiting for the other rank":  # which only a kill can end: gloo waits outside Python
        (artifact,) = [e.payload for e in engine.events(run_id) if e.kind is EventKind.ARTIFACT]
        assert "so_far" in artifact["names"]
    wait_gone(run_id)


def test_a_cell_that_catches_everything_is_killed(engine: Cluster) -> None:
    run_id = running(
        engine, "import time\nwhile True:\n    try:\n        time.sleep(600)\n    except BaseException: pass"
    )
    began = time.monotonic()
    engine.stop(run_id, "stop")
    causes = engine.wait_exits(run_id)
    assert {cause["kind"] for cause in causes.values()} == {"stopped"}
    assert time.monotonic() - began >= 4.0
    wait_gone(run_id)


def test_a_second_stop_that_is_harder_takes_over(engine: Cluster) -> None:
    run_id = running(engine, "import time\ntime.sleep(600)")
    began = time.monotonic()
    engine.stop(run_id, "stop")
    engine.stop(run_id, "kill")
    engine.wait_exits(run_id)
    assert time.monotonic() - began < 2.0
    wait_gone(run_id)


def test_should_stop_lets_a_cell_end_by_itself(engine: Cluster) -> None:
    run_id = running(
        engine, "import time\nwhile not train.should_stop:\n    time.sleep(0.01)\nprint('in order')"
    )
    engine.stop(run_id, "stop")
    causes = engine.wait_exits(run_id)
    assert {cause["kind"] for cause in causes.values()} == {"done"}
    assert text(engine.events(run_id), 1) == "in order\n"


@pytest.mark.parametrize("mode", ["fail", "kill"])
def test_a_failure_elsewhere_ends_a_sleeping_rank_at_once(engine: Cluster, mode: str) -> None:
    run_id = running(engine, "import time\ntime.sleep(600)")
    began = time.monotonic()
    engine.stop(run_id, mode)
    engine.wait_exits(run_id)
    assert time.monotonic() - began < 1.9  # a stop would take 2 s
    wait_gone(run_id)


@pytest.mark.parametrize("end", ["", "import time\ntime.sleep(600)"])
def test_children_go_with_their_rank_however_far_they_went(engine: Cluster, end: str) -> None:
    before = sleepers()
    run_id = engine.launch(CHILDREN + end)
    if end:
        engine.wait(lambda: text(engine.events(run_id), 1))
        engine.stop(run_id, "kill")
    engine.wait_exits(run_id)
    assert sleepers() <= before
    assert [pid for pid in processes_of(run_id) if is_running(pid)] == []


def test_a_killed_rank_is_told_with_its_signal(engine: Cluster) -> None:
    run_id = running(engine, "import time\ntime.sleep(600)")
    os.kill(engine.pids[1], signal.SIGKILL)
    engine.wait(lambda: any(each["status"] == "exited" for each in engine.told(run_id)))
    (told,) = [each for each in engine.told(run_id) if each["status"] == "exited"]
    assert told["rank"] == 1
    assert (told["cause"]["kind"], told["cause"]["signal"]) == ("signal", 9)
    engine.stop(run_id, "fail")
    engine.wait_exits(run_id)
    wait_gone(run_id)


def test_what_a_killed_rank_had_logged_is_not_lost(engine: Cluster) -> None:
    run_id = running(engine, "import os, time\nprint('last words')\ntime.sleep(0.5)\nos.kill(os.getpid(), 9)")
    engine.wait_exits(run_id)
    assert text(engine.events(run_id), 0) == "last words\n"


def test_a_terminated_rank_takes_its_children_along(engine: Cluster) -> None:
    before = sleepers()
    run_id = running(engine, CHILDREN + "time.sleep(600)")
    engine.wait(lambda: text(engine.events(run_id), 0) and text(engine.events(run_id), 1))
    for pid in engine.pids.values():
        os.kill(pid, signal.SIGTERM)
    engine.wait_exits(run_id)
    assert sleepers() <= before


def test_a_killed_zygote_costs_its_ranks_and_is_replaced(own_engine: Cluster) -> None:
    engine = own_engine
    before = sleepers()
    run_id = running(engine, CHILDREN + "time.sleep(0.3)\nimport ctypes\nctypes.PyDLL(None).sleep(600)")
    engine.wait(lambda: text(engine.events(run_id), 1))
    zygote = psutil.Process(engine.pids[1]).ppid()
    os.kill(zygote, signal.SIGKILL)
    engine.wait(lambda: any(each["status"] == "exited" for each in engine.told(run_id)))
    (told,) = [each for each in engine.told(run_id) if each["status"] == "exited"]
    assert told["rank"] == 1
    assert told["cause"]["kind"] == "lost"
    assert "forked from" in told["cause"]["text"]
    assert not is_running(engine.pids[1])
    engine.stop(run_id, "fail")
    engine.wait_exits(run_id)
    wait_gone(run_id)
    # One process that scrubbed its environment and its session is nobody's once the zygote is gone.
    for pid in sleepers() - before:
        assert psutil.Process(pid).environ() == {}
        os.kill(pid, signal.SIGKILL)
    engine.wait_ready()
    again = engine.launch("print('again')")
    assert {cause["kind"] for cause in engine.wait_exits(again).values()} == {"done"}


def test_a_killed_worker_takes_everything_of_its_rank_along(own_engine: Cluster) -> None:
    engine = own_engine
    before = sleepers()
    run_id = running(engine, CHILDREN + "time.sleep(600)")
    engine.wait(lambda: text(engine.events(run_id), 0) and text(engine.events(run_id), 1))
    rank = engine.pids[1]
    zygote = psutil.Process(rank).ppid()
    worker = psutil.Process(zygote).ppid()
    of_the_other = psutil.Process(engine.pids[0])
    sleeping = [child.pid for child in of_the_other.children() if child.pid in sleepers()]
    kept = [of_the_other.pid, *sleeping]
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 2.0
    while is_running(zygote) or is_running(rank):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert all(is_running(pid) for pid in kept), "the other worker's rank is left alone"
    left = engine.call(engine.workers[0], "train_spool", run_id=run_id, attempt=1)["events"]
    assert left, "what the rank had told lies beside it"
    leases = engine.scheduler(lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks])
    assert not any("/1/1@" in key for key in leases), "its lease must not wait for the dead worker"
    engine.call(engine.workers[0], "train_stop_ranks", run_id=run_id, attempt=1, mode="kill")
    engine.wait_exits(run_id, ranks=1)
    wait_gone(run_id)
    assert sleepers() <= before


def test_a_worker_that_is_closed_ends_its_ranks(own_engine: Cluster) -> None:
    run_id = running(own_engine, "import time\ntime.sleep(600)")
    own_engine.client.retire_workers(own_engine.workers, close_workers=True)
    wait_gone(run_id, 10.0)


def test_ranks_that_wait_for_a_zygote_are_stopped_before_they_begin(own_engine: Cluster) -> None:
    engine = own_engine
    first = running(engine, "import time\ntime.sleep(600)")
    for pid in list(engine.pids.values()):
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
    engine.wait_exits(first)

    async def launch_and_stop(dask_scheduler: Any, worker: str, spec: dict[str, Any]) -> Any:
        import asyncio

        rpc = dask_scheduler.rpc(worker)
        about = {"run_id": spec["run_id"], "attempt": 1}
        launching = asyncio.create_task(
            rpc.train_launch(
                **about,
                spec=spec,
                ranks=[[0, 0]],
                world_size=1,
                local_world_size=1,
                master_host="127.0.0.1",
                master_port=0,
            )
        )
        await asyncio.sleep(0.1)
        await dask_scheduler.rpc(worker).train_stop_ranks(**about, mode="kill")
        return await asyncio.wait_for(launching, 1.0)

    spec = engine.spec("print('never')", ranks=1)
    answer = engine.scheduler(launch_and_stop, worker=engine.workers[0], spec=spec)
    assert "stopped before" in answer["error"]["message"]
    engine.wait_ready()
    assert processes_of(spec["run_id"]) == []


def test_a_launch_that_is_asked_for_twice_is_done_once(engine: Cluster) -> None:
    async def launch_twice(dask_scheduler: Any, worker: str, spec: dict[str, Any]) -> Any:
        arguments = {
            "run_id": spec["run_id"],
            "attempt": 1,
            "spec": spec,
            "ranks": [[0, 0]],
            "world_size": 1,
            "local_world_size": 1,
            "master_host": "127.0.0.1",
            "master_port": 0,
        }
        return [await dask_scheduler.rpc(worker).train_launch(**arguments) for _ in range(2)]

    spec = engine.spec("import time\ntime.sleep(1)", ranks=1)
    first, second = engine.scheduler(launch_twice, worker=engine.workers[0], spec=spec)
    assert first == second
    assert len(processes_of(spec["run_id"])) == 1
    engine.wait_exits(spec["run_id"], ranks=1)


def test_the_stacks_of_a_rank_are_on_record_and_not_in_its_output(engine: Cluster) -> None:
    run_id = running(engine, "import ctypes\ndef stuck():\n    ctypes.PyDLL(None).sleep(600)\nstuck()")

    def told() -> bool:
        (text,) = engine.call(engine.workers[0], "train_stacks", run_id=run_id, attempt=1)["stacks"].values()
        return "in stuck" in text

    engine.wait(told)
    engine.wait(lambda: "in stuck" in text(engine.events(run_id), 0, "stacks"))
    assert "What rank 0 is doing" in text(engine.events(run_id), 0, "stacks")
    engine.stop(run_id, "kill")
    engine.wait_exits(run_id)
    assert not text(engine.events(run_id), 0, "stdout")
    assert not text(engine.events(run_id), 0, "stderr")
