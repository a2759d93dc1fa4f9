"""Several kernels on one cluster, and what is on record of their runs."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from jupyter_train.record import Event, EventKind
from jupyter_train.store.store import Store
from tests.e2e.kit import Notebook, new_notebook, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

WORKERS = 4
RANKS = ((4, 1, 2), (3, 1, 4), (2, 3))  #: of each kernel's runs

SUBMIT = """
import jupyter_train as jt
def work(number):
    import time, torch
    time.sleep(0.2)
    return float(train.sum(torch.tensor(number)))
runs = [jt.submit(work, 10, ranks=ranks, name=f"shared-{ranks}") for ranks in {ranks}]
"""
WAIT = "print([run.value for run in runs])"


@pytest.mark.timeout(240)
def test_eight_runs_of_three_kernels_share_four_workers(shared_home: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        kernels = [stack.enter_context(new_notebook(shared_home, tmp_path)) for _ in RANKS]
        scaled = kernels[0].run(f"%train cluster start local -n {WORKERS}", timeout=90)
        assert scaled.error is None, scaled.all_text
        begun = float(kernels[0].run("import time; print(time.time())").stdout)
        for kernel, ranks in zip(kernels, RANKS, strict=True):
            kernel.start(SUBMIT.format(ranks=ranks))
        for kernel, ranks in zip(kernels, RANKS, strict=True):
            reply = kernel.run(WAIT, timeout=90)
            assert reply.stdout.strip() == str([10.0 * n for n in ranks]), reply.all_text

    store = Store(shared_home)

    def ours() -> list[str]:
        return [r.run_id for r in store.runs() if r.name.startswith("shared-") and (r.started or 0) > begun]

    wait_until(lambda: len(ours()) == 8 and all(store.view(r).ended for r in ours()), 10)
    assert len({store.view(run_id).spec.session for run_id in ours()}) == 3  # type: ignore[union-attr]
    states = [e for run_id in ours() for e in store.events(run_id) if e.kind is EventKind.STATE]
    waited = [e.payload for e in states if e.payload.get("queue_place")]
    assert waited, "eight runs of 20 ranks do not fit on four workers at once"
    assert all("in the queue: needs" in payload["reason"] for payload in waited)
    check_sharing(sorted(states, key=lambda event: event.time))


def check_sharing(states: list[Event]) -> None:
    """What must hold at every moment of a history, told by the one clock of the controller."""
    ranks: dict[str, int] = {}
    queue: list[str] = []
    held: dict[str, list[str]] = {}
    for at, event in enumerate(states):
        run_id, state = event.run_id, event.payload["state"]
        if state == "PENDING":
            if "spec" in event.payload:
                ranks[run_id] = event.payload["spec"]["ranks"]
                queue.append(run_id)
        elif state == "STARTING":
            workers = [place["worker"] for place in event.payload["placement"]]
            assert len(set(workers)) == ranks[run_id], "all ranks at once, each on a worker of its own"
            assert not {*workers} & {w for others in held.values() for w in others}, "a worker has one rank"
            held[run_id] = workers
            queue.remove(run_id)
        elif state in ("SUCCEEDED", "FAILED", "CANCELLED"):
            assert state == "SUCCEEDED", event.payload
            del held[run_id]
        free = WORKERS - sum(map(len, held.values()))
        if queue and ranks[queue[0]] <= free:
            # Who ended, was handed in or was placed: the next thing said is the same decision's.
            assert at + 1 < len(states)
            assert states[at + 1].payload["state"] in ("STARTING", "PENDING"), "a worker is idle"
    assert not queue
    assert not held


CELL = """%%train -n 2 --name recorded -p lr=0.5
import os
net = Net(3)
answer = net.rate + 0 * len(os.environ["HF_CANARY"])
"""


@pytest.mark.timeout(180)
def test_a_run_has_on_record_where_it_comes_from_and_no_value_of_the_environment(
    notebook: Notebook, tmp_path: Path
) -> None:
    canary = "canary-7f3a91"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a.txt").write_text("x")
    for words in (["init", "-q"], ["add", "a.txt"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True, timeout=60)
    notebook.run(f"import os\nos.environ['SECRET_WORD'] = os.environ['HF_CANARY'] = {canary!r}", silent=True)
    notebook.run("def double(x): return 2 * x\nclass Net:\n    def __init__(self, n): self.rate = double(n)")

    reply = notebook.run(CELL, timeout=90)

    assert reply.error is None, reply.all_text
    shown = notebook.run(
        "import socket, torch\nimport jupyter_train as jt\nfound = jt.run('last').provenance\n"
        "print(answer, found['params'], found['git']['dirty'], len(found['git']['commit']))\n"
        "print(sorted(found['definitions']), found['definitions']['Net'].startswith('class Net:'))\n"
        "print(found['versions']['torch'] == str(torch.__version__), found['cell'].startswith('import os'))\n"
        "print([(r, m['hostname'] == socket.gethostname(), m['device'], bool(m['cpu'])) "
        "for r, m in found['machines'].items()])"
    )
    assert shown.stdout.splitlines() == [
        "6 {'lr': 0.5} False 40",
        "['Net', 'double'] True",
        "True True",
        "[(0, True, 'cpu', True), (1, True, 'cpu', True)]",
    ], shown.all_text
    found = [path for path in notebook.home.rglob("*") if path.is_file() and canary in _text(path)]
    assert found == []


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("latin-1")
    except OSError:  # it went meanwhile
        return ""
