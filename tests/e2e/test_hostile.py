"""Cells that do their worst: each ends as the reference says, nothing of it is left, and the next run works.

One notebook and one cluster for all: what one cell breaks, the next one would meet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jupyter_train.store.store import Store
from tests.e2e.kit import Notebook, Reply, new_notebook, processes_of_runs, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A cell and how it ends: without an error where ``error`` is empty."""

    cell: str
    error: str = ""
    says: tuple[str, ...] = ()  #: in the error, or else anywhere below the cell
    then: str = ""  #: what the notebook prints afterwards for …
    prints: str = ""
    interrupted: bool = False  #: by ■, once it runs


BUILTINS = "('len', 'isinstance', 'print', 'list', 'range', 'type', 'open', 'getattr', 'BaseException')"

CELLS = {
    "a segmentation fault": Hostile(
        cell="import ctypes\ndef crash():\n    ctypes.string_at(0)\ncrash()",
        error="RankLost",
        says=("SIGSEGV", "segmentation fault", "line 4, in crash", "----> 4 ", "line 5"),
    ),
    "os._exit": Hostile(cell="import os\nos._exit(3)", error="RankLost", says=("exit code 3", "os._exit")),
    "an endless loop in C": Hostile(
        cell="import re\nso_far = 1\nre.match('(a+)+$', 'a' * 60 + 'b')",
        error="KeyboardInterrupt",
        interrupted=True,
        then="so_far",
        prints="1",
    ),
    "an endless loop that holds the interpreter": Hostile(
        cell="import ctypes\nctypes.PyDLL(None).sleep(600)", error="KeyboardInterrupt", interrupted=True
    ),
    "forks": Hostile(
        cell="import os\nfor _ in range(3):\n    os.fork()\nmade = os.getpid()",
        then="made > 0",
        prints="True",
    ),
    "a recursion without end": Hostile(
        cell="def f(n): return f(n + 1)\nf(0)", error="RecursionError", says=("more of your frames",)
    ),
    "a recursion through C without a limit": Hostile(
        cell="import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())",
        error="RankLost",
        says=("SIGSEGV", "__repr__"),
    ),
    "more memory than there may be": Hostile(
        cell="import resource, torch\nresource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "model = torch.nn.Linear(1000, 1000)\nbatch = torch.ones(10 << 30, dtype=torch.uint8)",
        error="RuntimeError",
        says=("out of memory", "model 4.0 MB", "line 5", "smaller batch"),
        then="type(model).__name__",
        prints="Linear",
    ),
    "more memory than numpy gets": Hostile(
        cell="import resource, numpy as np\nresource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\nx = np.ones(10 << 30)",
        error="MemoryError",
        says=("out of memory",),
    ),
    "closing what it prints to": Hostile(
        cell="import os, sys\nsys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)\nprint('still heard'); ok = 1",
        says=("still heard",),
        then="ok",
        prints="1",
    ),
    "closing every file": Hostile(cell="import os\nos.closerange(3, 256)\nprint('x')", error="RankLost"),
    "killing its parent's group": Hostile(
        cell="import os, signal, time\nos.killpg(os.getpgid(os.getppid()), signal.SIGKILL)\ntime.sleep(600)",
        error="RankLost",
        says=("forked from",),
    ),
    "killing its own group": Hostile(
        cell="import os, signal\nos.killpg(0, signal.SIGKILL)", error="RankLost", says=("SIGKILL",)
    ),
    "ignoring and blocking every signal": Hostile(
        cell="import signal\nfor number in signal.valid_signals():\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\ndeaf = 1",
        then="deaf",
        prints="1",
    ),
    "ignoring every signal in an endless loop": Hostile(
        cell="import signal\nfor number in signal.valid_signals():\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True:\n    try:\n        pass\n    except BaseException: pass",
        error="KeyboardInterrupt",
        interrupted=True,
    ),
    "deleting train": Hostile(cell="del train\nwithout = 1", then="without", prints="1"),
    "shadowing builtins": Hostile(
        cell="print = len = list = isinstance = Exception = 3\nvalue = 7\n",
        then="value, len",
        prints="7 3",
    ),
    "rebinding builtins for everybody": Hostile(
        cell=f"import builtins\nfor name in {BUILTINS}:\n    setattr(builtins, name, None)\nvalue = 8",
        then="value",
        prints="8",
    ),
    "monkey-patching torch": Hostile(
        cell="import torch\ntorch.Tensor.backward = torch.tensor = torch.zeros = torch.no_grad = None\n"
        "torch.Tensor.numpy = torch.nn.Module.__call__ = None\npatched = torch.ones(3)",
        says=("SUCCEEDED", "cannot come back"),
    ),
    "taking torch apart": Hostile(
        cell="import torch\ntorch.Tensor = torch.nn = None\npatched = 1",
        says=("SUCCEEDED", "cannot come back"),
    ),
    "10,000 names": Hostile(
        cell="for i in range(10_000): globals()[f'name_{i}'] = i", then="name_0 + name_9999", prints="9999"
    ),
    "unicode and very long lines": Hostile(
        cell="größe_名 = 'é' * 100_000  # ключ 😀\nprint('x' * 1_000_000)\nprint('😀\\x00\\ud800', größe_名[:3])",
        says=("😀", "ééé"),
        then="len(größe_名)",
        prints="100000",
    ),
    "a thread that never ends": Hostile(
        cell="import threading, time\nthreading.Thread(target=time.sleep, args=(10**6,)).start()\nhere = 1",
        then="here",
        prints="1",
    ),
    "an atexit function that never returns": Hostile(
        cell="import atexit, time\natexit.register(time.sleep, 10**6)\nhere = 2",
        says=("atexit",),
        then="here",
        prints="2",
    ),
    "atexit functions that register themselves": Hostile(
        cell="import atexit\ndef again():\n    atexit.register(again)\natexit.register(again)\nhere = 3",
        then="here",
        prints="3",
    ),
    "a huge exception text": Hostile(
        cell="raise ValueError('x' * 100_000_000)", error="ValueError", says=("xxxxx", "line 2")
    ),
    "an exception that cannot be pickled": Hostile(
        cell="import threading\nclass Odd(Exception):\n    def __init__(self, a, b):\n        super().__init__(a)\n"
        "        self.lock = threading.Lock()\nraise Odd('what', 2)",
        error="Odd",
        says=("Odd: what", "line 7"),
    ),
    "an exception whose __str__ raises": Hostile(
        cell="class Mute(Exception):\n    def __str__(self): raise SystemExit('no')\nraise Mute('x')",
        error="Mute",
        says=("cannot be shown", "line 4"),
    ),
    "sys.exit": Hostile(cell="import sys\nkept = 5\nsys.exit()\nkept = 6", then="kept", prints="5"),
    "sys.exit with a code": Hostile(
        cell="import sys\nkept = 7\nsys.exit(3)",
        error="RunFailed",
        says=("SystemExit: 3",),
        then="kept",
        prints="7",
    ),
    "exit()": Hostile(cell="kept = 8\nexit()\nkept = 9", then="kept", prints="8"),
    "asking at a keyboard": Hostile(
        cell="breakpoint()", error="RuntimeError", says=("cannot ask anybody", "line 2")
    ),
}


@pytest.fixture(scope="module")
def hostile_notebook(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with new_notebook(shared_home, tmp_path_factory.mktemp("hostile")) as opened:
        assert opened.run("%%train -n 2\npass", timeout=90).error is None
        yield opened


def run(notebook: Notebook, name: str, hostile: Hostile) -> Reply:
    title = f"hostile-{list(CELLS).index(name)}"
    notebook.run("for name in ('print', 'len', 'list', 'isinstance', 'Exception'): globals().pop(name, None)")
    return notebook.run(
        f"%%train -n 2 --name {title}\n{hostile.cell}",
        timeout=90,
        interrupt_when=(lambda: notebook.run_is(title, "RUNNING")) if hostile.interrupted else None,
    )


def shared_memory() -> set[str]:
    return {
        entry.name for entry in Path("/dev/shm").iterdir() if "jupyter" in entry.name or "torch" in entry.name
    }


@pytest.mark.parametrize("name", CELLS)
def test_a_hostile_cell_ends_as_the_reference_says(hostile_notebook: Notebook, name: str) -> None:
    notebook, hostile = hostile_notebook, CELLS[name]
    shared = shared_memory()
    reply = run(notebook, name, hostile)
    assert (reply.error.name if reply.error else "") == hostile.error, reply.all_text[-2000:]
    told = reply.error.plain_text if reply.error else reply.all_text
    assert [words for words in hostile.says if words not in told] == [], told[-3000:]
    assert not reply.error or len(told.strip().splitlines()) <= 15
    assert len(told) < 2_000_000
    if hostile.then:
        assert notebook.run(f"__import__('builtins').print({hostile.then})").stdout.strip() == hostile.prints
    wait_until(lambda: processes_of_runs(notebook.home) == [], 5)
    assert shared_memory() <= shared
    after = notebook.run("%%train -n 2\nanswer = train.sum(train.rank + 20.5)", timeout=90)
    assert after.error is None, after.all_text[-2000:]
    assert notebook.run("__import__('builtins').print(answer)").stdout.strip() == "42.0"


def test_no_file_of_a_hostile_cell_stays_but_its_results(hostile_notebook: Notebook) -> None:
    """Runs' folders hold results, and for some seconds what ranks told; a rank's temporary files are gone."""
    first = next(iter(CELLS))
    run(hostile_notebook, first, CELLS[first])
    home = hostile_notebook.home
    folders = [home / "runs" / one.run_id for one in Store(home).runs() if one.name.startswith("hostile-")]
    assert folders

    def strangers() -> list[str]:
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return [str(path) for path in files if not path.name.startswith(("result-", "error-"))]

    wait_until(lambda: strangers() == [], 20)


def test_a_literal_of_50_megabytes_is_refused_at_once(hostile_notebook: Notebook) -> None:
    began = time.monotonic()
    # Through the magic itself: the protocol of Jupyter alone would take most of a minute with such a cell.
    cell = "get_ipython().run_cell_magic('train', '-n 2', 'text = ' + repr('x' * (50 << 20)))"
    reply = hostile_notebook.run(cell, timeout=60)
    assert reply.error is not None
    assert reply.error.name == "CellError"
    assert "assign the long text in a cell above" in reply.error.plain_text
    assert time.monotonic() - began < 30
    hostile_notebook.run("text = 'x' * (50 << 20)")
    after = hostile_notebook.run("%%train -n 2\nlength = len(text)", timeout=90)
    assert after.error is None, after.all_text
    assert hostile_notebook.run("print(length == 50 << 20)").stdout.strip() == "True"
