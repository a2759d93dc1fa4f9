"""What a run brings back, through a real kernel and a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.kit import Notebook, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.mark.timeout(120)
def test_a_model_of_100_mb_comes_back_into_the_same_weights(notebook: Notebook) -> None:
    notebook.run(
        "import torch\nfrom torch import nn\nmodel = nn.Sequential(*[nn.Linear(1600, 1600) for _ in range(10)])\n"
        "weights = list(model.parameters()); before = [w.detach().clone() for w in weights]"
    )

    reply = notebook.run("%%train -n 2\nwith torch.no_grad():\n    for w in model.parameters(): w.add_(1)")

    assert reply.error is None, reply.all_text
    claim = (
        "print(sum(w.nbytes for w in weights) > 100e6, "
        "all(a is b for a, b in zip(weights, model.parameters())), "
        "all(torch.equal(a, b + 1) for a, b in zip(weights, before)))"
    )
    assert notebook.run(claim).stdout.split() == ["True", "True", "True"]


@pytest.mark.timeout(120)
def test_the_next_cell_draws_the_random_numbers_that_follow_the_runs(notebook: Notebook) -> None:
    seed = "import random, numpy as np, torch\nrandom.seed(1); np.random.seed(1); torch.manual_seed(1)"
    draw = "random.random(), float(np.random.rand()), float(torch.rand(1))"
    notebook.run(f"{seed}\nplain = [({draw}), ({draw})]\n{seed}")

    assert notebook.run(f"%%train -n 2\nfirst = ({draw})").error is None
    notebook.run(f"second = ({draw})")

    assert notebook.run("print([first, second] == plain)").stdout.strip() == "True"


@pytest.mark.timeout(120)
def test_a_seed_is_the_runs_own_and_leaves_the_notebooks_random_states_alone(notebook: Notebook) -> None:
    notebook.run("import torch\ntorch.manual_seed(1); expected = float(torch.rand(1)); torch.manual_seed(1)")

    assert notebook.run("%%train -n 1 --seed 7\ndrawn = float(torch.rand(1))").error is None

    assert notebook.run("print(float(torch.rand(1)) == expected, drawn == expected)").stdout.split() == [
        "True",
        "False",
    ]


def two_runs_at_once(notebook: Notebook, go: Path, *, late: str, early: str) -> None:
    """``late`` and then ``early``, which assign and change the same; ``late`` ends after ``early``."""
    notebook.run("%train cluster start -n 2", timeout=60)
    notebook.run("import os, time\nhistory = []")
    waits = f"while not os.path.exists({str(go)!r}): time.sleep(0.01)"
    for name, line in ((late, waits), (early, "pass")):
        started = notebook.run(
            f"%%train -n 1 --bg --name {name}\n{line}\nmodel = {name!r}; history.append({name!r})"
        )
        assert started.error is None, started.all_text
    wait_until(lambda: notebook.run_is(early, "SUCCEEDED"), 60)
    go.touch()
    wait_until(lambda: notebook.run_is(late, "SUCCEEDED"), 60)


@pytest.mark.timeout(120)
def test_of_two_runs_at_once_the_later_to_end_wins_also_if_it_is_asked_first(
    notebook: Notebook, tmp_path: Path
) -> None:
    two_runs_at_once(notebook, tmp_path / "go", late="tortoise", early="hare")

    notebook.run("%train wait tortoise", timeout=60)
    reply = notebook.run("%train wait hare", timeout=60)

    assert "history, model stay as run tortoise left them, which ended later" in reply.all_text
    assert 'jt.run("hare").result("history") and the like have this run\'s' in reply.all_text
    assert notebook.run("print(model, history)").stdout.split() == ["tortoise", "['tortoise']"]
    assert (
        notebook.run("import jupyter_train as jt; print(jt.run('hare').result('model'))").stdout == "hare\n"
    )


@pytest.mark.timeout(120)
def test_of_two_runs_at_once_the_later_replaces_what_the_earlier_brought(
    notebook: Notebook, tmp_path: Path
) -> None:
    two_runs_at_once(notebook, tmp_path / "go", late="second", early="first")

    notebook.run("%train wait first", timeout=60)
    assert notebook.run("print(model)").stdout.strip() == "first"
    reply = notebook.run("%train wait second", timeout=60)

    assert "history, model were set by run first too, which ended earlier" in reply.all_text
    assert notebook.run("print(model, history)").stdout.split() == ["second", "['second']"]


@pytest.mark.timeout(120)
def test_what_stays_away_is_named_in_one_sentence_under_the_cell(notebook: Notebook) -> None:
    reply = notebook.run(
        "%%train -n 1\nimport threading\nlock = threading.Lock(); log = open('/dev/null'); fine = 1"
    )

    assert reply.error is None
    assert "did not come back: lock (a lock), log (an open file)" in reply.all_text
    assert notebook.run("print(fine)").stdout.strip() == "1"
