"""What a cell needs of the notebook is there on the rank, however it is reached."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_train.errors import CaptureError
from tests.transport.conftest import Notebook

CELLS = [
    # earlier cells, the cell, a name and its value
    ("def f(): return g()\ndef g(): return k\nk = 3", "x = f()", 3),
    ("k = 3\nclass A:\n  def m(self): return k\nclass B(A): pass\nb = B()", "x = b.m()", 3),
    ("k = 3\nclass A:\n  @property\n  def p(self): return k\na = A()", "x = a.p", 3),
    ("k = 3\nclass A:\n  @classmethod\n  def c(cls): return k\n  @staticmethod\n  def s(): return k", "x = A.c() + A.s()", 6),
    ("k = 3\nclass A:\n  class B:\n    def m(self): return k", "x = A.B().m()", 3),
    ("k = 3\ndef deco(f):\n  def w(*a): return f(*a) + k\n  return w\n@deco\ndef f(x): return x", "x = f(1)", 4),
    (
        "import functools\nk = 3\ndef deco(f):\n  @functools.wraps(f)\n  def w(*a): return f(*a) + k\n  return w",
        "@deco\ndef f(v): return v\nx = f(1)",
        4,
    ),
    ("from dataclasses import dataclass, field\nk = 3\n@dataclass\nclass C:\n  v: int = field(default_factory=lambda: k)", "x = C().v", 3),
    ("def make():\n  n = 2\n  def inner(): return n + k\n  return inner\nk = 3\nf = make()", "x = f()", 5),
    ("k = 3\ndef f(a=lambda: k): return a()", "x = f()", 3),
    ("k = 3\nfs = {'a': [lambda: k]}", "x = fs['a'][0]()", 3),
    ("import functools\nk = 3\ndef f(a): return a + k\np = functools.partial(f, 1)", "x = p()", 4),
    ("k = 3\nf = lambda: [k for _ in range(2)]", "x = f()", [3, 3]),
    ("k = 3\ndef f():\n  def g():\n    return {v: k for v in 'a'}\n  return g()", "x = f()", {"a": 3}),
    ("k = 3\ndef f():\n  global k\n  k += 1\n  return k", "x = f()", 4),
    ("k = 3\nclass M(type):\n  def __call__(cls): return k\nclass A(metaclass=M): pass", "x = A()", 3),
    ("import enum\nclass E(enum.Enum):\n  A = 1\n  def m(self): return k\nk = 3", "x = E.A.m()", 3),
    ("k = 3\ndef gen():\n  yield k", "x = list(gen())", [3]),
    ("k = 3\nasync def co(): return k", "x = await co()", 3),
    ("class Later: pass\ndef f(a: 'Later') -> 'list[Later]': pass", "import typing\nx = str(typing.get_type_hints(f)['a'].__name__)", "Later"),
    (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nclass T: pass\n@dataclass\nclass C:\n  t: T",
        "import typing\nx = typing.get_type_hints(C)['t'] is C.__annotations__ or typing.get_type_hints(C)['t'].__name__",
        "T",
    ),
    ("import pandas as pd\ndf = pd.DataFrame({'a': [1, 2, 3]})\nlow = 1", "x = df.query('a > @low').a.tolist()", [2, 3]),
    ("import pandas as pd\nlow = 1\ndef f(d): return d.query('a > @low').a.tolist()\ndf = pd.DataFrame({'a': [1, 2]})", "x = f(df)", [2]),
    ("k = 3\ncode = 'y = k + 1'", "exec(code)\nx = y", 4),
    ("k = 3\ndef f(): return eval('k + 1')", "x = f()", 4),
    ("k = 3\ndef get(name): return globals()[name]", "x = get('k')", 3),
    ("_ = 7\n_3 = 8\nOut = {3: 8}\nIn = ['', 'a']", "x = [_, _3, Out[3], In[1]]", [7, 8, 8, "a"]),
    ("k = [1]", "k += [2]\nx = k", [1, 2]),
    ("k = 3", "def f():\n  class A:\n    v = k\n  return A.v\nx = f()", 3),
    ("k = 3", "x = [k + (z := y) for y in range(2)][-1] + z", 5),
    ("k = 3", "match {'a': [1, k]}:\n  case {'a': [1, n]}: x = n", 3),
]  # fmt: skip


@pytest.mark.parametrize(("before", "cell", "value"), CELLS, ids=[cell[1][:50] for cell in CELLS])
def test_what_a_cell_reaches_is_there(notebook: Notebook, before: str, cell: str, value: Any) -> None:
    notebook.cell(before)

    notebook.train(cell)

    assert notebook["x"] == value


def test_a_name_in_a_text_that_cannot_travel_stays_and_is_named(notebook: Notebook) -> None:
    notebook.cell("import threading\nlock = threading.Lock()\nk = 2")

    notebook.train("x = eval('k') if 'lock' else 0")

    assert notebook["x"] == 2
    assert notebook.captured is not None
    (remark,) = notebook.captured.remarks
    assert "lock (_thread.lock) cannot travel" in remark


def test_what_a_function_reads_and_cannot_travel_is_named_with_the_function(notebook: Notebook) -> None:
    notebook.cell("import threading\nclass A:\n  def m(self): return lock\nlock = threading.Lock()\na = A()")

    with pytest.raises(CaptureError, match=r"^lock \(_thread.lock\) cannot travel .*\(A\.m reads it\)$"):
        notebook.capture("a.m()")


def test_shared_objects_stay_shared(notebook: Notebook) -> None:
    notebook.cell(
        "import torch\nt = torch.zeros(4)\na = torch.utils.data.TensorDataset(t)\nb = torch.utils.data.TensorDataset(t)\n"
        "net = torch.nn.Linear(2, 2)\nnet.again = net.weight\nopt = torch.optim.SGD(net.parameters(), 0.1)\n"
        "class Holder: pass\nh = Holder()\nh.net = net\nfs = [lambda: net]"
    )

    notebook.train(
        "x = [a.tensors[0] is b.tensors[0], net.again is net.weight, h.net is net, fs[0]() is net,\n"
        "     opt.param_groups[0]['params'][0] is net.weight, type(h) is Holder]"
    )

    assert notebook["x"] == [True] * 6
