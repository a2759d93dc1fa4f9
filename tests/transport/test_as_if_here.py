"""One cell run plainly and one run on a rank leave the same notebook: what changes in place, by kind of object."""

from __future__ import annotations

import sys
import types
import warnings
from dataclasses import dataclass
from typing import Any

import pytest

from tests.transport.conftest import Notebook


@dataclass(frozen=True)
class Cell:
    """``setup`` runs in the notebook, ``source`` plainly and on a rank; ``claims`` are then equal by their repr."""

    name: str
    setup: str
    source: str
    claims: tuple[str, ...]
    same: str = ""  #: names that still mean the very same objects


def cell(name: str, setup: str, source: str, *claims: str, same: str = "") -> Any:
    return pytest.param(Cell(name, setup, source, claims, same), id=name)


TORCH = "import torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
PANDAS = "import pandas as pd, numpy as np\n"
FIT = "for _ in range(3):\n    o.zero_grad(); m(torch.ones(1, 2)).sum().backward(); o.step()"

PLAIN = [
    cell("a deque", "from collections import deque\nd = deque([1, 2, 3], maxlen=5)",
         "d.rotate(1); d.appendleft(9)", "d", same="d"),
    cell("a defaultdict keeps its factory", "from collections import defaultdict\nd = defaultdict(list, a=[1])",
         "d['a'].append(2); d['b'].append(3)", "d", "d['new']", same="d"),
    cell("an OrderedDict", "from collections import OrderedDict\nd = OrderedDict(a=1, b=2, c=3)",
         "d.move_to_end('a'); d.popitem(last=False)", "d", same="d"),
    cell("a Counter", "from collections import Counter\nd = Counter('abc')",
         "d.update('aab'); d.subtract('c')", "d", same="d"),
    cell("a ChainMap over a captured dict", "from collections import ChainMap\nbase = {'x': 1}; d = ChainMap({}, base)",
         "d['y'] = 2; base['x'] = 5", "dict(d)", "d.maps[1] is base", same="d base"),
    cell("bytes and arrays of the standard library", "import array\nb = bytearray(b'abc'); a = array.array('d', [1])",
         "b += b'x'; b[0] = 65; a.append(3.5)", "b", "a", same="a b"),
    cell("a list sorted in place, and its alias", "d = [3, 1, 2]; e = d",
         "d.sort(); d.insert(0, 7); e += [8]", "d", "e is d", same="d e"),
    cell("a subclass of dict with attributes", "class D(dict): pass\nd = D(a=1); d.note = [1]",
         "d['b'] = 2; d.note.append(2); d.x = 1", "d", "d.note", "d.x", same="d"),
    cell("a SimpleNamespace", "from types import SimpleNamespace\nc = SimpleNamespace(a=1, b=[1])",
         "c.a = 5; c.b.append(2); c.new = 3", "c", same="c"),
    cell("attributes of functions", "def f(): f.calls += 1\nf.calls = 0; f.log = []",
         "f(); f(); f.log.append(1)", "f.calls", "f.log", same="f"),
    cell("a counting decorator",
         "import functools\ndef count(f):\n    @functools.wraps(f)\n    def w(*a):\n        w.calls += 1\n        return f(*a)\n"
         "    w.calls = 0\n    return w\n@count\ndef g(x): return x",
         "g(1); g(2)", "g.calls", same="g"),
    cell("mutable defaults", "def f(x, acc=[], *, kw={}):\n    acc.append(x); kw[x] = 1\n    return acc, kw",
         "r, _kw = f(1); f(2)", "f(3)", "f.__defaults__[0] is r", same="f"),
    cell("what closures share", "def make():\n    n, seen = 0, []\n    def up():\n        nonlocal n\n        n += 1; seen.append(n)\n"
         "        return n, seen\n    return up\nup = make()",
         "up(); up()", "up()", same="up"),
    cell("names set by functions with global",
         "total = 0\ndef add(x):\n    global total, last\n    total += x; last = x", "add(3); add(4)", "total", "last"),
    cell("what the cell deletes", "a = 1; b = [2, 3]; d = {'x': 1, 'y': 2}\nclass O: pass\no = O(); o.p = 1",
         "del a, d['x'], o.p, b[0]", "'a' in globals()", "b", "d", "vars(o)", same="b d o"),
    cell("two names that change places", "a, b = [1], [2]; first, second = a, b",
         "a, b = b, a; a.append(3)", "a", "b", "a is second", "b is first", same="first second"),
    cell("objects that refer to each other", "class N: pass\na, b = N(), N(); a.o, b.o = b, a",
         "a.x = 1; b.o.y = 2; c = N(); c.o = a; a.c = c", "a.y", "a.c.o is a", "b.o is a", "c is a.c", same="a b"),
    cell("keys that are the notebook's objects",
         "class K:\n    def __init__(s, n): s.n = n\n    def __hash__(s): return hash(s.n)\n    def __eq__(s, o): return s.n == o.n\n"
         "k = K(1); d = {k: [1]}; members = {k}",
         "d[K(2)] = 5; d[K(1)].append(9); members.add(K(3))",
         "d[k]", "len(d)", "sorted(m.n for m in members)", "next(iter(d)) is k", same="k d members"),
    cell("bound methods", "class A:\n    def __init__(self): self.n = 0\n    def up(self): self.n += 1\na = A(); up = a.up",
         "up(); up()", "a.n", "up.__self__ is a", same="a up"),
    cell("slots beside a dict", "class S: __slots__ = ('a', '__dict__')\ns = S(); s.a = 1; s.z = 1",
         "s.b = [2]; s.a = 5; del s.z", "s.a", "vars(s)", same="s"),
    cell("objects with their own __getstate__",
         "class S:\n    def __init__(self): self.a = 1; self.f = lambda: 1\n    def __getstate__(self): return {'a': self.a}\n"
         "    def __setstate__(self, s): self.a = s['a']; self.f = lambda: 2\ns = S()",
         "s.a = 5", "s.a", "s.f()", same="s"),
    cell("enums and flags", "import enum\nclass M(enum.Enum):\n    A = 1\n    B = 2\nd = {M.A: 1}",
         "d[M.B] = 2; current = M.A", "d", "current is M.A", same="M d"),
]  # fmt: skip

CLASSES = [
    cell("a class that counts its objects", "class A:\n    n = 0\n    all = []\n    def __init__(self): A.n += 1; A.all.append(A.n)",
         "a = A(); b = A()", "A.n", "A.all", "type(a) is A", same="A"),
    cell("a counter of a classmethod", "class A:\n    n = 0\n    @classmethod\n    def up(cls): cls.n += 1",
         "A.up(); A.up()", "A.n", same="A"),
    cell("attributes and methods put in and taken out", "class A:\n    n, x = 0, 1",
         "A.new = [1]; del A.x\ndef m(self): return 41 + self.n\nA.meth = m; A.__len__ = lambda self: 3",
         "A.new", "hasattr(A, 'x')", "A().meth()", "len(A())", "A.meth is m", same="A"),
    cell("a registry of subclasses", "class A:\n    known = {}\n    def __init_subclass__(cls): A.known[cls.__name__] = cls",
         "class B(A): pass", "list(A.known)", "A.known['B'] is B", same="A"),
    cell("a singleton", "class S:\n    one = None\n    def __new__(cls):\n        if cls.one is None: cls.one = super().__new__(cls)\n"
         "        return cls.one",
         "s = S(); s.x = 1", "S() is s", "S.one.x", same="S"),
    cell("a metaclass with a list", "class M(type):\n    made = []\n    def __call__(cls):\n        o = super().__call__(); M.made.append(o)\n"
         "        return o\nclass A(metaclass=M): pass\na = A()",
         "b = A()", "len(M.made)", "M.made[0] is a", "M.made[1] is b", same="A M a"),
]  # fmt: skip

MOVING_ON = [
    cell("iterators", "one, text, numbers, back = iter([1, 2, 3]), iter('ab'), iter(range(9)), reversed([1, 2])",
         "x = next(one), next(text), next(numbers), next(back)",
         "x", "next(one), next(text), next(numbers), next(back)", same="one text numbers back"),
    cell("iterators over iterators", "pairs, places, mapped = zip([1, 2], 'ab'), enumerate('ab'), map(abs, [-1, -2])",
         "x = next(pairs), next(places), next(mapped)", "x", "next(pairs), next(places), next(mapped)", same="pairs"),
    cell("iterators at their end", "a, b, c, d, e = iter([1]), iter('ab'), reversed([1]), iter({1: 2}), iter({3}); pairs = zip([1], (2,))",
         "x = [*a, *b, *c, *d, *e, *pairs]", "x", "[*a, *b, *c, *d, *e, *pairs]", same="a b c d e pairs"),
    cell("a context of decimal", "import decimal\nc = decimal.Context(prec=5)", "c.prec = 7", "c.prec", same="c"),
    cell("bit generators and seed sequences",
         "import numpy as np\nb = np.random.PCG64(3); s = np.random.SeedSequence(5); r = np.random.default_rng(1)",
         "x = b.random_raw(); children = s.spawn(2); r.spawn(1); y = r.random()",
         "x", "b.random_raw()", "s.spawn(1)[0].spawn_key", "y", "r.random()",
         "r.bit_generator.seed_seq.n_children_spawned", same="b s r"),
    cell("the notebook's own random states",
         "import numpy as np, random, torch\nnp.random.seed(0); random.seed(0); torch.manual_seed(0)",
         "x = np.random.rand(), random.random(), torch.rand(1).item(), np.random.randn()",
         "x", "np.random.randn(), random.random(), torch.rand(1).item()"),
    cell("an image", "from PIL import Image, ImageDraw\nimage = Image.new('L', (3, 3))",
         "image.putpixel((0, 0), 9); ImageDraw.Draw(image).point((1, 1), 7)", "image.tobytes()", same="image"),
]  # fmt: skip

ARRAYS = [
    cell("a masked array", "import numpy as np\na = np.ma.masked_array([1, 2, 3], mask=[0, 0, 1])",
         "a[0] = np.ma.masked; a[1] = 7", "a", same="a"),
    cell("a subclass with attributes", "import numpy as np\nclass Q(np.ndarray): pass\na = np.arange(3.).view(Q); a.unit = 'm'",
         "a[0] = 9; a.unit = 's'", "a", "a.unit", same="a"),
    cell("a shape set in place", "import numpy as np\na = np.arange(6)", "a.shape = (2, 3); a[0, 0] = 9", "a", same="a"),
    cell("structured and zero-dimensional arrays",
         "import numpy as np\ns = np.array([(1, 2.)], [('a', 'i4'), ('b', 'f8')]); z = np.array(3.)",
         "s['b'][0] = 7; z[...] = 5", "s", "z", same="s z"),
    cell("gradients of a hand-made model", TORCH + "w = torch.ones(2, requires_grad=True); b = torch.zeros(1, requires_grad=True)",
         "for _ in range(3):\n    loss = ((w * 2 + b - 3) ** 2).sum(); loss.backward()\n    with torch.no_grad():\n"
         "        w -= 0.1 * w.grad; b -= 0.1 * b.grad\n        b.grad = None\n        before = w.grad.clone()\n        w.grad.zero_()\n"
         "fresh = torch.ones(2, requires_grad=True); (fresh * fresh).sum().backward()",
         "w", "b", "w.grad", "b.grad", "before", "fresh.grad", same="w b"),
    cell("a gradient that an earlier cell left", TORCH + "w = torch.ones(2, requires_grad=True); (w * 3).sum().backward(); g = w.grad",
         "seen = w.grad.clone(); (w * 2).sum().backward()", "seen", "w.grad", "w.grad is g", same="w g"),
    cell("attributes of tensors", TORCH + "m = nn.Linear(2, 1); t = torch.ones(1)", "m.weight.frozen = True; t.note = [1]",
         "m.weight.frozen", "t.note", same="m t"),
    cell("buffers", TORCH + "m = nn.Module(); m.register_buffer('r', torch.zeros(2)); m.register_buffer('u', torch.zeros(1), persistent=False)\n"
         "buffer = m.r",
         "m.r += 1; m.u.add_(2); m.register_buffer('new', torch.ones(1))",
         "m.r", "m.u", "m.new", "buffer is m.r", "list(m.state_dict())", same="m buffer"),
    cell("metadata changed in place", TORCH + "x = torch.zeros(2, 3)", "x.t_(); x.fill_(1)", "x", same="x"),
]  # fmt: skip

VIEWS = [
    cell(
        "views made of captured arrays",
        "import numpy as np\ndata = np.arange(400_000.).reshape(-1, 4); small = np.arange(4)",
        "X, y = data[:, :-1], data[:, -1]; head, back = data[:10], data[::-1]; small[0] = 7; pair = small[:2]\n"
        "copied = data[:2].copy()",
        "X.sum(), y.sum(), back[0, 0]",
        "np.shares_memory(X, data), np.shares_memory(y, data), np.shares_memory(head, data), np.shares_memory(back, data)",
        "pair",
        "np.shares_memory(pair, small)",
        "np.shares_memory(copied, data)",
        "head.flags.writeable",
        same="data small",
    ),
    cell(
        "tensors over captured arrays and back",
        TORCH + "import numpy as np\narray = np.arange(6.); tensor = torch.arange(6.)",
        "t = torch.from_numpy(array); rows = tensor.view(2, 3)[:, 1]; n = tensor.numpy(); tensor.mul_(2); array[1] = 9",
        "t",
        "rows",
        "n",
        "np.shares_memory(n, tensor.numpy()), np.shares_memory(t.numpy(), array), rows.data_ptr() - tensor.data_ptr()",
        "t.fill_(3).sum(), array",
        same="array tensor",
    ),
    cell(
        "the state of a model, which is its weights",
        TORCH + "m = nn.Linear(2, 1); o = torch.optim.SGD(m.parameters(), lr=.1)",
        FIT
        + "\nstate = m.state_dict(); flat = m.weight.data.view(-1); frozen = {k: v.clone() for k, v in state.items()}",
        "state['weight'].data_ptr() == m.weight.data_ptr()",
        "flat",
        "frozen",
        "flat.fill_(5), m.weight, state, frozen",
        same="m o",
    ),
    cell(
        "frames over captured frames stay apart",
        PANDAS + "df = pd.DataFrame({'a': [1., 2.], 'b': [3., 4.]})",
        "part = df[['a', 'b']]; shallow = df.copy(deep=False); column = df['a']; df.loc[0, 'b'] = 7",
        "part",
        "shallow",
        "column",
        "part.__setitem__('a', 0), shallow.iloc.__setitem__((0, 0), 9), df, part, shallow",
        same="df",
    ),
    cell(
        "a view of an array that took another shape",
        "import numpy as np\na = np.arange(6)",
        "row = a[:3]; a.shape = (2, 3); a[0, 0] = 9",
        "a",
        "row",
        "np.shares_memory(row, a)",
        same="a",
    ),
    cell(
        "a data set over captured tensors",
        TORCH + "from torch.utils.data import TensorDataset\nx = torch.arange(8.)",
        "train, test = TensorDataset(x[:6]), TensorDataset(x[6:]); x[0] = 5",
        "train[0], test[0]",
        "x.fill_(1), train[0], test[1]",
        same="x",
    ),
]

TRAINING = [
    cell("a gradient scaler", TORCH + "m = nn.Linear(2, 1); o = torch.optim.SGD(m.parameters(), lr=.1)\n"
         "s = torch.amp.GradScaler('cpu', init_scale=8., growth_interval=1)",
         "loss = m(torch.ones(1, 2)).sum(); s.scale(loss).backward(); s.step(o); s.update()",
         "s.get_scale()", "m.weight", same="m o s"),
    cell("averaged weights", TORCH + "m = nn.Linear(2, 1); o = torch.optim.Adam(m.parameters())\n"
         "e = torch.optim.swa_utils.AveragedModel(m, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))",
         FIT + "; e.update_parameters(m)", "e.n_averaged", "e.module.weight", "o.state_dict()", same="m e o"),
    cell("averages kept by hand", TORCH + "m = nn.Linear(2, 1); shadow = {k: v.clone() for k, v in m.state_dict().items()}",
         "with torch.no_grad(): m.weight.add_(1)\nfor k, v in m.state_dict().items(): shadow[k] = .5 * shadow[k] + .5 * v",
         "shadow", "m.weight", same="m shadow"),
    cell("an optimizer that gets another group", TORCH + "m, n = nn.Linear(2, 1), nn.Linear(1, 1); o = torch.optim.Adam(m.parameters())",
         "o.add_param_group({'params': list(n.parameters()), 'lr': .5}); o.param_groups[0]['lr'] = .25",
         "len(o.param_groups)", "o.param_groups[1]['params'][0] is n.weight", "o.param_groups[0]['lr']", same="m n o"),
    cell("a model that loses and gains layers", TORCH + "m = nn.Sequential(nn.Linear(2, 2), nn.ReLU()); head = m[0]",
         "m[0] = nn.Linear(2, 3); m.append(nn.Tanh()); head.weight.data.fill_(1)",
         "m", "m[0].weight", "head.weight", same="m head"),
    cell("weight norm and spectral norm",
         TORCH + "from torch.nn.utils import parametrizations as p\nm, s = p.weight_norm(nn.Linear(2, 1)), p.spectral_norm(nn.Linear(2, 2))\n"
         "o = torch.optim.SGD(m.parameters(), lr=.1)",
         FIT + "\ns(torch.ones(1, 2))", "m.weight", "s.parametrizations.weight[0]._u", same="m s"),
    *(cell(scheduler.partition("(")[0], TORCH + "m = nn.Linear(2, 1); o = torch.optim.SGD(m.parameters(), lr=.1, momentum=.9)\n"
           f"import torch.optim.lr_scheduler as lr\ns = lr.{scheduler}",
           FIT + f"; s.step({step})", "o.param_groups[0]['lr']", "s.last_epoch", "s.optimizer is o", "s.state_dict().keys()",
           "o.param_groups[0]['params'][0] is m.weight", "o.state[m.weight]['momentum_buffer']", same="m o s")
      for scheduler, step in (("OneCycleLR(o, max_lr=.5, total_steps=10)", ""), ("ReduceLROnPlateau(o, patience=0)", "1.0"),
                              ("LambdaLR(o, lambda epoch: .5 ** epoch)", ""),
                              ("SequentialLR(o, [lr.ConstantLR(o, .1, 2), lr.ExponentialLR(o, .9)], [2])", ""))),
    cell("a data set that caches", TORCH + "from torch.utils.data import DataLoader, Dataset\nclass D(Dataset):\n"
         "    def __init__(self): self.cache, self.n = {}, 0\n    def __len__(self): return 4\n"
         "    def __getitem__(self, i):\n        self.n += 1; self.cache[i] = torch.tensor(i)\n        return self.cache[i]\n"
         "d = D(); loader = DataLoader(d, batch_size=2)",
         "for batch in loader: pass", "d.n", "d.cache", "batch", "loader.dataset is d", same="d loader"),
    cell("hooks put on and taken off", TORCH + "m = nn.Linear(2, 1); seen = []\nh = m.register_forward_hook(lambda *a: seen.append(1))",
         "m(torch.ones(1, 2)); h.remove(); m(torch.ones(1, 2))", "seen", "len(m._forward_hooks)", same="m h"),
]  # fmt: skip

FRAMES = [
    cell("columns, index and attrs", PANDAS + "df = pd.DataFrame({'a': [3, 1, 2]}); alias = df",
         "df['b'] = df.a * 2; df.columns = ['p', 'q']; df.index = list('xyz'); df.index.name = 'i'; df.attrs['k'] = 1",
         "df", "df.attrs", "df.index.name", "alias is df", same="df"),
    cell("rows that are appended", PANDAS + "df = pd.DataFrame({'e': [], 'l': []})",
         "for i in range(3): df.loc[len(df)] = [i, i * .5]", "df", same="df"),
    cell("a series and its name", PANDAS + "s = pd.Series([1., 2.], name='n')", "s.iloc[0] = 9; s.name = 'm'", "s", same="s"),
    cell("categories, nullable and dated columns",
         PANDAS + "c = pd.Series(list('aab'), dtype='category'); n = pd.Series([1, None], dtype='Int64')\n"
         "t = pd.Series(['a', None], dtype='string'); d = pd.Series(pd.to_datetime(['2020-01-01', '2021-01-01']).tz_localize('UTC'))",
         "c[0] = 'b'; n[1] = 5; t[1] = 'q'; d[0] = d[1]", "c", "n", "t", "d", same="c n t d"),
    cell("an index of several levels",
         PANDAS + "df = pd.DataFrame({'a': [1, 2]}, index=pd.MultiIndex.from_tuples([('x', 1), ('y', 2)], names=['k', 'n']))",
         "df.loc[('x', 1), 'a'] = 50; df.index.names = ['K', 'N']", "df", same="df"),
    cell("a subclass with metadata",
         PANDAS + "class F(pd.DataFrame):\n    _metadata = ['unit']\n    @property\n    def _constructor(self): return F\n"
         "df = F({'a': [1]}); df.unit = 'm'",
         "df['b'] = 2; df.unit = 's'", "df", "df.unit", "type(df) is F", same="df"),
    cell("names of an index", PANDAS + "index = pd.Index([1, 2], name='a')", "index.name = 'b'", "index", same="index"),
    cell("lists in a column", PANDAS + "df = pd.DataFrame({'l': [[1], [2]]}); first = df.l[0]", "df.l[0].append(5)", "df", same="df first"),
]  # fmt: skip


@pytest.mark.parametrize("case", [*PLAIN, *CLASSES, *MOVING_ON, *ARRAYS, *VIEWS, *TRAINING, *FRAMES])
def test_a_cell_leaves_the_notebook_as_if_it_had_run_there(
    notebook: Notebook, case: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = types.ModuleType("__main__")
    with monkeypatch.context() as plainly, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plainly.setitem(sys.modules, "__main__", here)
        exec(compile(case.setup, "<setup>", "exec"), here.__dict__)
        exec(compile(case.source, "<cell>", "exec"), here.__dict__)
        expected = {claim: repr(eval(claim, here.__dict__)) for claim in case.claims}

    notebook.cell(case.setup)
    own = {name: notebook[name] for name in case.same.split()}
    applied = notebook.train(case.source)

    assert {claim: repr(eval(claim, notebook.names)) for claim in case.claims} == expected
    assert [name for name, value in own.items() if notebook[name] is not value] == []
    assert applied.remarks == ()
