"""A run on a cluster that somebody else started, with their idle time-out or their adaptive scaling."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import Notebook, new_notebook, processes_of_runs, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@contextlib.contextmanager
def dask_of_the_command_line(
    folder: Path,
    home: Path,
    idle_timeout: str,
    *,
    workers: int = 2,
    processes: list[subprocess.Popen[bytes]] | None = None,
) -> Iterator[str]:
    """``dask scheduler`` and its workers, as anybody starts them. Gives the address, and puts in ``processes`` what it started."""
    record = folder / "scheduler.json"
    environment = {**os.environ, "JUPYTER_TRAIN_HOME": str(home)}
    commands = [
        [
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--scheduler-file",
            str(record),
            "--idle-timeout",
            idle_timeout,
            "--no-dashboard",
        ],
        *[
            [
                "worker",
                "--scheduler-file",
                str(record),
                "--nthreads",
                "1",
                "--no-dashboard",
                "--host",
                "127.0.0.1",
                "--death-timeout",
                "30",
                "--local-directory",
                str(folder),
            ]
        ]
        * workers,
    ]
    started = [] if processes is None else processes
    try:
        for command in commands:
            with (folder / f"{len(started)}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "dask", *command],
                        env=environment,
                        stdout=log,
                        stderr=log,
                        cwd=folder,
                    )
                )
        wait_until(lambda: record.exists() and record.read_text().endswith("}"), 30)
        yield json.loads(record.read_text())["address"]
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(20)


@pytest.mark.timeout(180)
def test_a_run_of_14_s_outlives_kernel_and_an_idle_time_out_of_10_s(
    shared_home: Path, tmp_path: Path
) -> None:
    with new_notebook(shared_home, tmp_path) as notebook:
        # First: on a busy machine a kernel may take longer to start than the scheduler waits for work.
        assert notebook.run("import distributed, jupyter_train as jt", timeout=60).error is None
        with dask_of_the_command_line(tmp_path, shared_home, "10s") as address:
            assert notebook.run(f"%train cluster use {address}", timeout=60).error is None
            joined = notebook.run("jt.cluster().client.wait_for_workers(2, 30)", timeout=60)
            assert joined.error is None, joined.all_text
            cell = "%%train -n 2 --bg --name patient\nimport time\nbegun = time.time()\ntime.sleep(14)\ntook = time.time() - begun"
            assert notebook.run(cell, timeout=60).error is None
            wait_until(lambda: notebook.run_is("patient", "RUNNING"), 30)
            begun = time.monotonic()
            notebook.kill9()
            wait_until(lambda: not notebook.run_is("patient", "RUNNING"), 60)
            assert notebook.run_is("patient", "SUCCEEDED")
            assert time.monotonic() - begun > 8
    with new_notebook(shared_home, tmp_path) as notebook:
        reply = notebook.run("import jupyter_train as jt\nprint(jt.run('patient').result()['took'])")
        assert float(reply.stdout) >= 14
    wait_until(lambda: processes_of_runs(shared_home) == [], 5)


@pytest.mark.timeout(180)
def test_adaptive_scaling_never_takes_the_workers_of_a_run(notebook: Notebook) -> None:
    notebook.run(
        "from distributed import LocalCluster, Client\n"
        "theirs = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)\n"
        "import jupyter_train as jt; jt.cluster.use(Client(theirs))",
        timeout=60,
    )
    begun = notebook.run("%%train -n 2 --bg --name kept\nimport time\ntime.sleep(7)\nkept = True", timeout=60)
    assert begun.error is None, begun.all_text
    wait_until(lambda: notebook.run_is("kept", "RUNNING"), 30)
    notebook.run("adaptive = theirs.adapt(minimum=0, maximum=2, interval='500ms', wait_count=2)")
    reply = notebook.run("%train wait kept", timeout=60)
    assert reply.error is None, reply.all_text
    assert notebook.run("print(kept)").stdout.strip() == "True"
    assert notebook.end_of("kept") == "SUCCEEDED"
    # Once nothing trains they may go: it was the run that kept them.
    notebook.run(
        "import time\nend = time.time() + 30\n"
        "while theirs.scheduler.workers and time.time() < end: time.sleep(0.1)",
        timeout=60,
    )
    assert notebook.run("print(len(theirs.scheduler.workers))").stdout.strip() == "0"
    notebook.run("theirs.close()", timeout=60)


@pytest.mark.timeout(180)
def test_workers_with_files_of_their_own_are_sent_what_they_lack_once(
    notebook: Notebook, tmp_path: Path
) -> None:
    theirs = tmp_path / "their home"
    theirs.mkdir()
    with dask_of_the_command_line(tmp_path, theirs, "60s") as address:
        assert notebook.run(f"%train cluster use {address}", timeout=60).error is None
        notebook.run(
            "import numpy as np, jupyter_train as jt\nx = np.arange(3_000_000.0)\n"
            "jt.cluster().client.wait_for_workers(2, 30)",
            timeout=60,
        )
        sent = []
        for name in ("first", "second"):
            reply = notebook.run(f"%%train -n 2 --name {name}\ntotal = float(x.sum())\nx[0] = 1", timeout=60)
            assert reply.error is None, reply.all_text
            sent.append(int(notebook.run("print(jt.run().sent_bytes); x[0] = 0").stdout))
        assert notebook.run("print(total == x.sum())").stdout.strip() == "True"
        assert 24_000_000 < sent[0] < 24_100_000, "both workers share a folder"
        assert sent[1] < 10_000
        assert "0 B of it not yet on cluster" in notebook.run("%train capture x").stdout
