"""Functions on a cluster, from a notebook, from a module and from a plain script."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.e2e.kit import Notebook

pytestmark = pytest.mark.cluster

FIT = """\
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import jupyter_train as jt
from jupyter_train import train

SCALE = 1.0
seen = []

def scaled(x):
    return x * SCALE

def fit(model, data, *, epochs=2, log=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(epochs):
        for x, y in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            my_loss = nn.functional.mse_loss(model(scaled(x)), y)
            my_loss.backward()
            optimizer.step()
        print("epoch", epoch)
        if log is not None:
            log.append(my_loss.item())
    seen.append(train.world_size)
    return {"model": model, "params": dict(train.params), "rank": train.rank}

def bad(n):
    letters = "abc"
    return letters[n]

torch.manual_seed(0)
model, log = nn.Linear(4, 1), []
before = model.weight
x = torch.randn(96, 4)
data = TensorDataset(x, x.sum(1, keepdim=True))
"""


def test_a_submitted_function_is_a_run_with_a_value(notebook: Notebook) -> None:
    assert notebook.run(FIT, timeout=60).error is None
    shown = notebook.run(
        "run = jt.submit(fit, model, data, epochs=3, log=log, ranks=2, params={'lr': 0.5}, tags={'a': 'b'})\n"
        "value = run.value\n"
        "print(value['model'] is model, model.weight is before, len(log), seen, value['params'], value['rank'])\n"
        "print(sorted(run.curves), run.state, run.name, run.result() is value)\n",
        timeout=90,
    )
    assert shown.error is None, shown.all_text
    assert "epoch 0\nepoch 1\nepoch 2\n" in shown.stdout
    assert "True True 3 [2] {'lr': 0.5} 0\n" in shown.stdout
    assert "['lr', 'my_loss', 'samples_per_s', 'step_time_s'] SUCCEEDED fit True" in shown.stdout
    assert any("SUCCEEDED" in display["text/plain"] for display in shown.displays)


def test_two_ranks_of_a_function_give_what_the_plain_call_gives(notebook: Notebook) -> None:
    assert notebook.run(FIT, timeout=60).error is None
    same = notebook.run(
        "import copy\n"
        "there, state = copy.deepcopy(model), torch.get_rng_state()\n"
        "fit(model, data)\n"
        "torch.set_rng_state(state)\n"
        "jt.on_cluster(ranks=2, name='there')(fit)(there, data)\n"
        "print('distance', (there.weight - model.weight).abs().max().item() < 1e-5)\n",
        timeout=90,
    )
    assert same.error is None, same.all_text
    assert "distance True" in same.stdout


def test_a_decorated_function_waits_and_raises_its_own_error(notebook: Notebook) -> None:
    assert notebook.run(FIT, timeout=60).error is None
    defined = notebook.run(
        "@jt.on_cluster(ranks=2)\n"
        "def outer(n, ranks=0):\n"
        '    "Doc."\n'
        "    seen.append(n)\n"
        "    return inner(n) + ranks\n"
        "\n"
        "@jt.on_cluster\n"
        "def inner(n):\n"
        "    return bad(n) * train.world_size\n"
    )
    assert defined.error is None, defined.all_text
    good = notebook.run(
        "try:\n    outer(1, ranks='x')\nfinally:\n    print(outer(1, ranks='x'), seen, outer.__doc__)",
        timeout=60,
    )
    assert good.error is None, good.all_text
    assert "bbx [1, 1] Doc." in good.stdout
    failed = notebook.run("outer(7)")
    assert failed.error is not None
    assert failed.error.name == "IndexError"
    text = failed.error.plain_text
    assert "IndexError in ranks 0–1 of 2, run outer" in text
    assert re.search(r"Cell In\[\d+\], line 5, in outer\n----> 5 +return inner\(n\) \+ ranks", text)
    assert re.search(r"Cell In\[\d+\], line 29, in bad\n----> 29 +return letters\[n\]", text)
    assert notebook.run("print(seen)").stdout == "[1, 1, 7]\n"


def test_what_cannot_travel_is_named_by_its_parameter(notebook: Notebook) -> None:
    assert notebook.run(FIT, timeout=60).error is None
    refused = notebook.run("jt.submit(fit, model, {'rows': open('there', 'w')}, ranks=2)", timeout=60)
    assert refused.error is not None
    assert refused.error.name == "CaptureError"
    assert "argument data['rows'] (_io.TextIOWrapper) cannot travel" in refused.error.value
    stays = notebook.run("jt.submit(lambda: (n for n in 'ab'), ranks=1).value", timeout=60)
    assert stays.error is not None
    assert stays.error.name == "RunError"
    assert "return value did not come back: " in stays.error.value


def test_an_interrupt_stops_a_call_and_keeps_what_it_changed(notebook: Notebook) -> None:
    assert notebook.run(FIT, timeout=60).error is None
    stopped = notebook.run(
        "jt.on_cluster(ranks=2, name='long')(fit)(model, data, epochs=100_000, log=log)",
        timeout=60,
        interrupt_when=lambda: notebook.run_is("long", "RUNNING"),
    )
    assert stopped.error is not None
    assert stopped.error.name == "KeyboardInterrupt"
    assert notebook.end_of("long") == "CANCELLED"
    after = notebook.run("print(len(log) > 0, torch.equal(before, before * 0), model.weight is before)")
    assert "True False True" in after.stdout or "False False True" in after.stdout


def script(home: Path, folder: Path, source: str, **files: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "script.py").write_text(textwrap.dedent(source))
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "JUPYTER_TRAIN_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_script_trains_and_shows_text(shared_home: Path, tmp_path: Path) -> None:
    done = script(
        shared_home,
        tmp_path,
        FIT
        + "if __name__ == '__main__':\n"
        + "    value = jt.submit(fit, model, data, log=log, ranks=2).value\n"
        + "    print('back', value['model'] is model, model.weight is before, len(log), seen)\n",
    )
    assert done.returncode == 0, done.stderr
    assert "back True True 2 [2]" in done.stdout
    assert "epoch 0\nepoch 1\n" in done.stdout
    assert done.stdout.count("✓ SUCCEEDED · 2 ranks") == 1
    assert "my_loss" in done.stdout
    assert done.stderr == ""


def test_an_error_in_a_script_has_the_lines_of_the_function(shared_home: Path, tmp_path: Path) -> None:
    done = script(shared_home, tmp_path, FIT + "jt.on_cluster(ranks=1)(bad)(5)\n")
    assert done.returncode == 1
    assert f'File "{tmp_path}/script.py", line 36, in <module>' in done.stderr
    assert "IndexError: string index out of range\nIndexError in rank 0 of 1, run bad\n" in done.stderr
    assert f"File {tmp_path}/script.py, line 29, in bad\n----> 29 " in done.stderr
    assert 'jt.run("bad").log(0)' in done.stderr
    assert "%train" not in done.stderr


def test_functions_of_an_imported_module_travel_by_name(shared_home: Path, tmp_path: Path) -> None:
    done = script(
        shared_home,
        tmp_path,
        """
        import jupyter_train as jt
        import fitting
        if __name__ == "__main__":
            print(jt.submit(fitting.double, 4, ranks=1).value, fitting.triple(2), fitting.triple.__module__)
            try:
                fitting.broken([])
            except ZeroDivisionError as error:
                print(error.__notes__[0])
        """,
        fitting=(
            "import jupyter_train as jt\n"
            "from jupyter_train import train\n"
            "TWO = 2\n"
            "def double(n): return n * TWO * train.world_size\n"
            "@jt.on_cluster(ranks=2)\n"
            "def triple(n): return double(n) + n\n"
            "@jt.on_cluster(ranks=1)\n"
            "def broken(seen):\n"
            "    return 1 / 0\n"
        ),
    )
    assert done.returncode == 0, done.stderr
    assert "8 10 fitting" in done.stdout
    assert f"File {tmp_path}/fitting.py, line 9, in broken" in done.stdout
    assert re.search(r"----> 9 +return 1 / 0", done.stdout)


def test_control_c_in_a_script_stops_the_run(shared_home: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        FIT
        + "import time\n"
        + "def slow(log):\n"
        + "    log.append('begun')\n"
        + "    print('begun', flush=True)\n"
        + "    time.sleep(60)\n"
        + "try:\n"
        + "    jt.on_cluster(ranks=1, name='slow')(slow)(log)\n"
        + "except KeyboardInterrupt:\n"
        + "    print('stopped', log)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "JUPYTER_TRAIN_HOME": str(shared_home), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    began = time.monotonic()
    try:
        for line in process.stdout:
            lines.append(line)
            assert time.monotonic() - began < 60
            if line == "begun\n":
                process.send_signal(signal.SIGINT)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert "stopped ['begun']\n" in lines


def test_calls_from_threads_run_side_by_side(shared_home: Path, tmp_path: Path) -> None:
    done = script(
        shared_home,
        tmp_path,
        """
        from concurrent.futures import ThreadPoolExecutor
        import jupyter_train as jt

        @jt.on_cluster(ranks=1)
        def double(n, log):
            log.append(n)
            return 2 * n

        logs = [[], []]
        jt.cluster(ranks=2)
        with ThreadPoolExecutor(2) as pool:
            print(list(pool.map(double, [1, 2], logs)), logs)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "[2, 4] [[1], [2]]" in done.stdout


def test_classes_errors_and_methods_of_a_script_stay_its_own_and_the_next_script_has_the_value(
    shared_home: Path, tmp_path: Path
) -> None:
    done = script(
        shared_home,
        tmp_path,
        """
        import dataclasses
        from pathlib import Path
        import jupyter_train as jt

        @dataclasses.dataclass
        class Result:
            rows: list
            file: str

        class MyError(Exception):
            def __init__(self, code, why):
                super().__init__(why)
                self.code = code

        class Trainer:
            done = 0
            @jt.on_cluster(ranks=1)
            def train(self, n):
                self.done += n
                return self

        async def make(rows):
            global made
            made = True
            rows.append(2)
            return Result(rows, Path(__file__).name)

        def fails():
            raise MyError(7, "why not")

        rows = [1]
        value = jt.submit(make, rows, ranks=1).value
        print(type(value) is Result, value.rows is rows, value, made)
        try:
            jt.on_cluster(ranks=1)(fails)()
        except MyError as error:
            print("code", error.code, error)
        trainer = Trainer()
        print(trainer.train(5) is trainer, trainer.done)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "True True Result(rows=[1, 2], file='script.py') True\n" in done.stdout
    assert "code 7 why not\n" in done.stdout
    assert "True 5\n" in done.stdout
    after = script(
        shared_home,
        tmp_path,
        "import jupyter_train as jt\n"
        "run = jt.run('make')\n"
        "print(run.value.rows, run.result('rows'), 'argument rows' in globals())\n",
    )
    assert after.returncode == 0, after.stderr
    assert after.stdout.endswith("[1, 2] [1, 2] False\n")


def test_a_count_in_a_function_is_named_by_its_cell(notebook: Notebook) -> None:
    assert notebook.run(FIT, timeout=60).error is None
    defined = notebook.run(
        "def count(loader):\n"
        "    layer, correct = nn.Linear(1, 1), 0\n"
        "    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)\n"
        "    for (x,) in loader:\n"
        "        (layer(x) ** 2).mean().backward()\n"
        "        optimizer.step()\n"
        "        correct += (x > 0).sum().item()\n"
        "    return correct"
    )
    assert defined.error is None
    counted = notebook.run(
        "jt.on_cluster(ranks=2)(count)(DataLoader(TensorDataset(torch.ones(12, 1)), batch_size=4))",
        timeout=60,
    )
    assert counted.error is None, counted.all_text
    assert re.search(
        r"of all ranks: `correct \+= train\.sum\(.*\)` \(Cell In\[\d+\], line 7\)", counted.all_text
    ), counted.all_text
