"""Names that are nowhere are found, and no cell that works is refused."""

from __future__ import annotations
import __future__

import sys
import types
from typing import Any

import pytest

from jupyter_train.transport.undefined import undefined_names


def notebook(source: str = "") -> dict[str, Any]:
    namespace = types.ModuleType("__main__").__dict__
    exec(
        "import torch\nfrom torch import nn\nmodel = 1\nloader = [1]\nempty = []\nopt = 2\n" + source,
        namespace,
    )
    return namespace


def nowhere(cell: str, before: str = "") -> list[str]:
    return [f"{one.name}:{one.line}" for one in undefined_names(cell, notebook(before))]


_NET = """class Net(nn.Module):
  def __init__(self):
    self.a = width
  def forward(self, x): return F.relu(x)
net = Net().to('cpu')
net(1)"""

REFUSED = [
    # cell, names with their lines
    ("y = modle", "modle:1"),
    ("for x in loader:\n  y = critrion(x)", "critrion:2"),
    ("for e in range(9):\n  loss = e\n  if e % 2:\n    print(los)", "los:4"),
    ("def step(x):\n  return modle(x)\nstep(1)", "modle:2"),
    ("f = lambda q: q * scael\nf(1)", "scael:1"),
    (_NET, "width:3 F:4"),
    ("class A:\n  def m(self): return self.n()\n  def n(self): return lost\na = A()\na.m()", "lost:3"),
    ("class A:\n  w = wdith", "wdith:2"),
    ("@decoo\ndef f(): pass", "decoo:1"),
    ("def f(x=dflt): pass", "dflt:1"),
    ("ys = [g(x) for x in loader]", "g:1"),
    ("n = sum(weight for x in loader)", "weight:1"),
    ("with torch.no_grad():\n  y = modle", "modle:2"),
    ("try:\n  y = modle\nexcept KeyError:\n  pass", "modle:2"),
    ("try:\n  pass\nfinally:\n  y = modle", "modle:4"),
    ("if __name__ == '__main__':\n  main()", "main:2"),
    ("while True:\n  x = modle\n  break", "modle:2"),
    ("x = 1 if True else 2\nprint(f'{modle}')", "modle:2"),
    ("a[i] = 1", "a:1 i:1"),
    ("await fetch()", "fetch:1"),
    ("print(modle, modle)\nmodle2", "modle:1 modle2:2"),
    ("from math import *\ny = sqrt(pii)", "pii:2"),
    ("model.eval(); torch.compile(modle)", "modle:1"),
]


@pytest.mark.parametrize(("cell", "expected"), REFUSED, ids=[cell for cell, _ in REFUSED])
def test_a_name_that_is_nowhere_is_found_with_its_line(cell: str, expected: str) -> None:
    assert nowhere(cell) == expected.split()


RUN = [
    "x = 1; print(x)",
    "print(x)\nx = 1",  # in the cell: the rank says so
    "if not torch.cuda.is_available(): pass\nelse: drive.mount('/')",
    "DEBUG = False\nif DEBUG: inspect_it()",
    "try:\n  unicode\nexcept NameError:\n  text = str",
    "try:\n  drive\nexcept Exception: pass",
    "try:\n  drive\nexcept: pass",
    "try:\n  drive\nexcept (ValueError, NameError): pass",
    "try:\n  import lib\nexcept ImportError:\n  fallback()",
    "import contextlib\nwith contextlib.suppress(NameError):\n  drive",
    "exec('y = 1')\nprint(y)",
    "exec(open)\nprint(y)",
    "globals()['y'] = 1\nprint(y)",
    "globals().update(vars(model))\nprint(y)",
    "if 'y' in dir(): print(y)",
    "import sys\nsys.modules['__main__'].y = 1\nprint(y)",
    "import builtins\nbuiltins.y = 1\nprint(y)",
    "get_ipython().run_line_magic('pylab', '')\nprint(y)",
    "torch.var('y')\ny + 1",
    "from somewhere_not_imported import *\nprint(y)",
    "from math import *\ny = sqrt(pi)",
    "def f():\n  global y\n  y = 1\nf(); print(y)",
    "def never(): return lost",
    "class A:\n  def never(self): return lost\nA()",
    "class A:\n  w = 1\n  v = w\n  z = [v for v in range(w)]",
    "class A:\n  print(__module__, __qualname__)",
    "class A(metaclass=type):\n  w = injected",
    "torch.jit.fork(lambda: lost)\nf = lambda: lost",
    "x = model or lost",
    "x = model if model else lost",
    "for x in []: lost",
    "for x in empty: lost",
    "ys = [lost for x in empty]",
    "ys = [lost for x in loader if x > 5]",
    "raise SystemExit\nlost",
    "import sys\nsys.exit()\nlost",
    "exit()\nlost",
    "assert False, 'stop here'\nlost",
    "while True:\n  pass\nlost",
    "if not torch.cuda.is_available():\n  raise SystemExit\nlost",
    "print(In, Out, _, __, _3, _i, _i3, _ih, _oh, _dh, exit, quit, get_ipython, display)",
    "print(__name__, __file__, __builtins__, __doc__)",
    "train.log(loss=1)",
    "match model:\n  case 2: lost\n  case _: pass",
    "from __future__ import annotations\ndef f(x: Unknown) -> Also: pass\nz: Third = 1",
    "def f():\n  x: Unknown = 1\nf()",
    "def f():\n  try:\n    lost\n  except NameError: pass\nf()",
    "[y := 1]; print(y)",
    "x = [z for z in range(3)]\ndef g(y): return [y for _ in x]\ng(1)",
    "def outer():\n  v = 1\n  def inner(): return v\n  return inner()\nouter()",
    "del model\nmodel = 1",
    "while loader:\n  item = loader.pop()\n  if item: break\nelse:\n  lost = 1",
    "def gen():\n  yield 1\n  return\n  lost\ngen()",
    "class T:\n  def __enter__(s): pass\n  def __exit__(s, *a): return True\nwith T():\n  lost",
]


@pytest.mark.parametrize("cell", RUN)
def test_a_cell_that_may_work_is_let_run(cell: str) -> None:
    assert nowhere(cell) == []


def test_annotations_are_not_read_where_an_earlier_cell_imported_that_from_the_future() -> None:
    source = "def f(x: Undefined) -> Nowhere: ...\n"
    assert [one.name for one in undefined_names(source, {})] == ["Undefined", "Nowhere"]
    assert undefined_names(source, {}, future=__future__.annotations.compiler_flag) == []


def test_names_that_functions_of_the_notebook_bind_are_known() -> None:
    cell = "setup()\nprint(y)"

    assert nowhere(cell, "def setup():\n  global y\n  y = 1") == []
    assert nowhere(cell, "def deep():\n  global y\n  y = 1\ndef setup(): deep()") == []
    assert nowhere(cell, "def setup(): globals().update(y=1)") == []
    assert nowhere(cell, "class S:\n  def __call__(self):\n    global y\n    y = 1\nsetup = S()") == []
    assert nowhere(cell, "def setup(): pass") == ["y:2"]


def test_the_line_is_that_of_the_users_cell() -> None:
    (found,) = undefined_names("x = 1\ny = modle", notebook(), first_line=2)

    assert found.line == 3


def test_a_future_line_of_an_earlier_cell_holds() -> None:
    cell = "def f(x: Unknown): return x"

    assert undefined_names(cell, notebook(), future=__future__.annotations.compiler_flag) == []
    if sys.version_info < (3, 14):
        assert [one.name for one in undefined_names(cell, notebook())] == ["Unknown"]


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        ("modle", "Did you mean 'model'?"),
        ("accuracy = 1\nprint(acuracy)", "Did you mean 'accuracy'?"),
        ("np.zeros(3)", "Add  import numpy as np"),
        ("json.dumps(1)", "Add  import json"),
        ("prnt(1)", "Did you mean 'print'?"),
        ("qqqqqq", ""),
    ],
)
def test_the_remedy_is_the_nearest_name_or_the_usual_import(cell: str, remedy: str) -> None:
    assert undefined_names(cell, notebook())[0].remedy == remedy
