"""Captured data travels once, lies in memory once, and starts a cell no later."""

from __future__ import annotations

import time

import pytest

from tests.e2e.kit import Notebook

pytestmark = [pytest.mark.cluster]

MEGABYTES = 200

_PSS = """
def pss_bytes():
    with open("/proc/self/smaps_rollup") as lines:
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
"""


def value(notebook: Notebook, expression: str) -> str:
    reply = notebook.run(f"print({expression})")
    assert reply.error is None, reply.all_text
    return reply.stdout.strip()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_large_array_is_sent_once_and_lies_in_memory_once(notebook: Notebook) -> None:
    notebook.run(
        "import numpy as np, jupyter_train as jt\n"
        f"x = np.random.default_rng(0).random({MEGABYTES * 125_000})\nfirst = x[0]\n" + _PSS
    )
    cell = (
        "%%train -n 4\n"
        "before = train.sum(pss_bytes())\n"
        "total = float(x.sum())\n"
        "train.sum(1)\n"
        "after = train.sum(pss_bytes())\n"
        "train.sum(1)\n"
        "if train.rank:\n    x[:] = -1\n"
        "train.sum(1)\n"
        "mine = float(x[0])"
    )
    for sent_less_than in (MEGABYTES * 10**6 + 10**6, 10_000):
        reply = notebook.run(cell, timeout=120)
        assert reply.error is None, reply.all_text
        sent = int(value(notebook, "jt.run().sent_bytes"))
        assert sent < sent_less_than
        growth = float(value(notebook, "after - before"))
        assert growth < 1.2 * MEGABYTES * 10**6
        # Three ranks overwrote all of it: neither rank 0 nor the notebook nor the next run sees that.
        assert value(notebook, "mine == first, x[0] == first, np.isclose(total, x.sum())") == "True True True"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_cell_over_a_large_array_starts_as_soon_as_one_without(notebook: Notebook) -> None:
    notebook.run(f"import numpy as np\nx = np.ones({MEGABYTES * 125_000})")
    starts: dict[str, list[float]] = {"x.size": [], "1": []}
    for _ in range(6):
        for reads, seconds in starts.items():
            pressed = time.time()
            reply = notebook.run(
                f"%%train -n 2\nimport time\nbegan = time.time()\nused = {reads}", timeout=60
            )
            assert reply.error is None, reply.all_text
            seconds.append(float(value(notebook, "began")) - pressed)
    # The quickest of each: what else the machine does only ever adds.
    assert min(starts["x.size"]) - min(starts["1"]) < 0.1


@pytest.mark.timeout(120)
def test_more_than_the_limit_is_refused_before_anything_starts(notebook: Notebook) -> None:
    notebook.run(
        "import numpy as np, dask\nx = np.ones(1_000_000)\n"
        "dask.config.set({'jupyter-train.capture-bytes': '5MB'})"
    )

    reply = notebook.run("%%train -n 1 --name refused\nx.sum()", timeout=60)

    assert reply.error is not None
    assert reply.error.name == "CaptureError"
    assert "x (ndarray 1000000 float64) 8 MB" in reply.error.plain_text
    assert not notebook.has_run("refused")


@pytest.mark.timeout(120)
def test_what_would_travel_is_shown_without_a_run(notebook: Notebook) -> None:
    notebook.run("import numpy as np\nx = np.ones(1_000_000)")
    before = notebook.run("%%train capture -n 2\ny = x.sum()")
    assert "1 name, 8 MB; 8 MB of it not yet" in before.stdout, before.all_text

    assert notebook.run("%%train -n 1\ny = x.sum()", timeout=60).error is None

    after = notebook.run("%train capture")
    assert "8 MB; 0 B of it not yet on cluster" in after.stdout, after.all_text
