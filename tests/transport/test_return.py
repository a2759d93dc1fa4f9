"""Cells on a rank, from capture to the notebook: what a user relies on."""

from __future__ import annotations

import textwrap
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from jupyter_train.errors import CaptureError
from jupyter_train.transport.result import apply_large, apply_result
from tests.transport.conftest import Notebook

TRAINING = """
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

class Net(nn.Module):
    depth = 1
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 8, bias=False)  # its gradient would be rounding noise before BatchNorm
        self.bn = nn.BatchNorm1d(8)
        self.b = nn.Linear(8, 2)
    def forward(self, x):
        return self.b(torch.relu(self.bn(self.a(x))))

torch.manual_seed(0)
data = TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))
"""

MODEL = """
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
loader = DataLoader(data, batch_size=16, shuffle=True)
"""

LOOP = """
for epoch in range(2):
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(xb), yb)
        loss.backward()
        optimizer.step()
    scheduler.step()
"""


@pytest.fixture
def training(notebook: Notebook) -> Notebook:
    notebook.cell(TRAINING)
    return notebook


# ---------------------------------------------------------------- models


def test_a_captured_model_has_its_new_weights_in_the_same_object(training: Notebook) -> None:
    training.cell(MODEL)
    model, optimizer, weight = training["model"], training["optimizer"], training["model"].a.weight
    before = weight.detach().clone()

    applied = training.train(LOOP)

    assert training["model"] is model
    assert model.a.weight is weight
    assert not torch.equal(weight, before)
    assert training["optimizer"] is optimizer
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(
        map(id, model.parameters())
    )
    assert set(map(id, optimizer.state)) == set(map(id, model.parameters()))
    assert float(optimizer.state[weight]["step"]) == 8
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0001)
    assert training["scheduler"].optimizer is optimizer
    assert training["scheduler"].last_epoch == 2
    assert int(model.bn.num_batches_tracked) == 8
    assert set(applied.changed) == {"model", "optimizer", "scheduler"}
    assert set(applied.names) == {"epoch", "xb", "yb", "loss"}
    assert not applied.remarks


def test_training_goes_on_where_the_rank_left_it(training: Notebook) -> None:
    """Two runs, the notebook between them, against the same three loops in one process."""
    training.cell(MODEL + "loader = DataLoader(data, batch_size=16)\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.train(LOOP)
        training.cell(LOOP)
        training.train(LOOP)
    plain: dict[str, Any] = {"__name__": "__main__"}
    exec(TRAINING + MODEL + "loader = DataLoader(data, batch_size=16)\n" + LOOP * 3, plain)

    for ours, theirs in zip(training["model"].parameters(), plain["model"].parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert training.told["error"] == ""


def test_a_model_made_by_the_cell_is_of_the_notebooks_class(training: Notebook) -> None:
    training.train(MODEL + LOOP)

    model = training["model"]
    assert type(model) is training["Net"]
    assert model.forward.__func__.__globals__ is training.names
    assert {id(p) for group in training["optimizer"].param_groups for p in group["params"]} == set(
        map(id, model.parameters())
    )
    assert training["scheduler"].optimizer is training["optimizer"]
    training.cell(LOOP)  # and it can be trained further here


def test_a_model_whose_class_the_cell_defines_comes_back(notebook: Notebook) -> None:
    notebook.train(TRAINING + MODEL + LOOP)

    assert type(notebook["model"]) is notebook["Net"]
    assert notebook["Net"].forward.__globals__ is notebook.names
    notebook.cell("model.eval(); out = model(torch.ones(3, 4))")
    applied = notebook.train("ok = isinstance(model, Net)\nmodel.train()\nother = Net()")
    assert notebook["ok"]
    assert notebook["model"].training
    assert type(notebook["other"]) is notebook["Net"]
    assert not applied.remarks


def test_tied_weights_stay_tied(training: Notebook) -> None:
    training.cell("tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))\ntied[1].weight = tied[0].weight")

    training.train(
        "assert tied[1].weight is tied[0].weight\nwith torch.no_grad(): tied[0].weight.fill_(0.5)\n"
        "fresh = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)); fresh[1].weight = fresh[0].weight"
    )

    assert training["tied"][0].weight is training["tied"][1].weight
    assert training["tied"][0].weight.detach()[0, 0].item() == 0.5
    assert training["fresh"][0].weight is training["fresh"][1].weight


@pytest.mark.parametrize(
    "change",
    [
        "model.half()",
        "model.a.weight.data = torch.full((8, 4), 3.0)",
        "model.a.weight.data[0] = 7",
        "model.a = nn.Linear(4, 8)",
        "model.eval()",
        "model.extra = nn.Parameter(torch.ones(3))",
        "del model.bn",
        "model.a.weight.requires_grad_(False)",
        "model.register_buffer('steps', torch.tensor(3))",
        "model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})",
    ],
)
def test_every_way_to_change_a_model_comes_back(training: Notebook, change: str) -> None:
    training.cell("model = Net()")
    model = training["model"]
    plain: dict[str, Any] = dict(training.names)
    plain["model"] = training["Net"]()
    plain["model"].load_state_dict(model.state_dict())

    training.train(change if "nn." in change else f"import torch\n{change}")
    torch.manual_seed(0)
    exec(change, plain)

    assert training["model"] is model
    theirs = plain["model"]
    assert model.training == theirs.training
    assert list(model.state_dict()) == list(theirs.state_dict())
    for (name, ours), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        assert ours.dtype == other.dtype, name
        assert ours.requires_grad == other.requires_grad, name
        assert ours.shape == other.shape, name
        if "nn.Linear" not in change:
            assert torch.equal(ours, other), name


def test_hooks_and_frozen_parts_travel(training: Notebook) -> None:
    training.cell(
        "model = Net()\ncalls = []\n"
        "handle = model.register_forward_hook(lambda module, args, out: calls.append(len(args)))\n"
        "model.a.requires_grad_(False)"
    )

    training.train("model(torch.ones(2, 4))\nfrozen = [p.requires_grad for p in model.a.parameters()]")

    assert training["calls"] == [1]
    assert training["frozen"] == [False]


def test_a_loss_comes_back_without_its_graph(training: Notebook) -> None:
    training.train(MODEL + LOOP)

    assert training["loss"].grad_fn is None
    assert not training["loss"].requires_grad


def test_sparse_tensors_and_subclasses_travel(training: Notebook) -> None:
    training.cell(
        "sparse = torch.eye(3).to_sparse()\nlazy = nn.LazyLinear(2)\n"
        "meta = torch.empty(3, device='meta')\nconj = torch.tensor([1 + 2j]).conj()\n"
        "class Tagged(torch.Tensor): pass\ntagged = torch.ones(2).as_subclass(Tagged)\ntagged.note = 'kept'"
    )

    training.train(
        "total = sparse.sum().item(), conj.imag.item(), meta.shape[0], type(tagged) is Tagged, tagged.note\n"
        "back = torch.eye(2).to_sparse()\ntagged.add_(1)"
    )

    assert training["total"] == (3.0, -2.0, 3, True, "kept")
    assert training["back"].to_dense().tolist() == [[1, 0], [0, 1]]
    assert training["tagged"].tolist() == [2, 2]


# ---------------------------------------------------------------- data


def test_data_sets_that_share_tensors_share_them_on_the_rank(training: Notebook) -> None:
    training.cell(
        "x = torch.arange(100_000.0)\ntrain_data, test_data = TensorDataset(x[:80_000]), TensorDataset(x[40_000:])"
    )
    size = sum(ref.size_bytes for ref in training.capture("train_data, test_data").refs)

    training.train("train_data.tensors[0][50_000] = -1\nseen = float(test_data.tensors[0][10_000])")

    assert size < 420_000
    assert training["seen"] == -1
    assert float(training["x"][50_000]) == -1


def test_a_data_set_is_written_once_and_only_the_rest_again(training: Notebook) -> None:
    training.cell("big = torch.ones(1_000_000)\nsmall = torch.zeros(3)")
    first = training.capture("big, small")
    training.cell("small += 1")
    second = training.capture("big, small")

    new = {ref.key for ref in second.refs} - {ref.key for ref in first.refs}
    assert sum(ref.size_bytes for ref in second.refs if ref.key in new) < 20_000
    assert first.sizes["big"] > 4_000_000


def test_a_lambda_in_a_data_set_and_loader_options_travel(training: Notebook) -> None:
    training.cell(
        "class Mapped:\n"
        "    def __init__(self, function): self.function = function\n"
        "    def __len__(self): return 6\n"
        "    def __getitem__(self, index): return self.function(index)\n"
        "factor = 10\n"
        "loader = DataLoader(Mapped(lambda index: index * factor), batch_size=4, collate_fn=lambda items: items)"
    )

    training.train("got = list(loader)")

    assert training["got"] == [[0, 10, 20, 30], [40, 50]]


def test_a_loader_with_a_running_persistent_iterator_travels_without_it(training: Notebook) -> None:
    training.cell(
        "loader = DataLoader(data, batch_size=32, num_workers=1, persistent_workers=True, multiprocessing_context='fork')\n"
        "first = next(iter(loader))"
    )
    iterator = training["loader"]._iterator
    assert iterator is not None

    applied = training.train("n = len(loader)")
    kept = training["loader"]._iterator
    iterator._shutdown_workers()

    assert training["n"] == 2
    assert kept is iterator
    assert not applied.remarks


def test_arrays_change_in_place_and_views_stay_views(notebook: Notebook) -> None:
    notebook.cell(
        "import numpy as np\nbig = np.zeros(200_000)\nview = big[10:20]\n"
        "frozen = np.ones(3); frozen.flags.writeable = False\ntexts = np.array(['a', None], object)"
    )
    big, texts = notebook["big"], notebook["texts"]

    applied = notebook.train(
        "view[0] = 9\nwriteable = frozen.flags.writeable\ntexts[1] = [1]\nfresh = np.arange(3)"
    )

    assert notebook["big"] is big
    assert big[10] == 9
    assert notebook["view"].base is big
    assert notebook["writeable"] is False
    assert notebook["texts"] is texts
    assert texts.tolist() == ["a", [1]]
    notebook["fresh"][0] = 5
    assert set(applied.changed) == {"view", "texts"}


def test_generators_of_random_numbers_go_on(notebook: Notebook) -> None:
    notebook.cell(
        "import numpy as np, random, torch\nrng = np.random.default_rng(0)\nold = np.random.RandomState(0)\n"
        "dice = random.Random(0)\ngenerator = torch.Generator().manual_seed(0)"
    )
    draw = "drawn = [rng.random(), old.rand(), dice.random(), torch.rand(1, generator=generator).item()]"
    plain: dict[str, Any] = {}
    exec(
        "import numpy as np, random, torch\nrng = np.random.default_rng(0)\nold = np.random.RandomState(0)\n"
        f"dice = random.Random(0)\ngenerator = torch.Generator().manual_seed(0)\n{draw}\nfirst = drawn\n{draw}",
        plain,
    )

    notebook.train(draw)
    first = notebook["drawn"]
    notebook.cell(draw)

    assert first == plain["first"]
    assert notebook["drawn"] == plain["drawn"]


def test_pandas_frames_change_in_place(notebook: Notebook) -> None:
    pytest.importorskip("pandas")
    notebook.cell(
        "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2, 3], 'b': ['x', 'y', 'z']})\n"
        "series = pd.Series([1.0, 2.0])\nuntouched = pd.DataFrame({'c': [1.5]})"
    )
    frame = notebook["df"]

    applied = notebook.train(
        "df['c'] = df.a * 2\ndf.loc[0, 'a'] = 10\nseries[1] = 5\nother = df.groupby('b').a.sum()\n_ = untouched.sum()"
    )

    assert notebook["df"] is frame
    assert frame.c.tolist() == [2, 4, 6]
    assert frame.a.tolist() == [10, 2, 3]
    assert notebook["series"].tolist() == [1, 5]
    assert notebook["other"].to_dict() == {"x": 10, "y": 2, "z": 3}
    assert set(applied.changed) == {"df", "series"}
    assert not applied.remarks


# ---------------------------------------------------------------- plain Python


def test_containers_change_in_place_and_keep_their_aliases(notebook: Notebook) -> None:
    notebook.cell(
        "import collections\n"
        "history = {'loss': [1.0]}\nalias = history['loss']\nseen = {1}\nqueue = collections.deque([1], maxlen=3)\n"
        "text = __import__('io').StringIO('a')\ncounts = collections.Counter('aab')\nordered = collections.OrderedDict(a=1, b=2)\nraw = bytearray(b'ab')\n"
        "tree = {'x': {'y': [1]}}\nuntouched = [1, {2: 3}]"
    )
    own = {
        name: notebook[name]
        for name in ("history", "alias", "seen", "queue", "counts", "ordered", "raw", "tree")
    }

    applied = notebook.train(
        "history['loss'].append(0.5)\nhistory['accuracy'] = [0.9]\nassert alias is history['loss']\n"
        "seen.add(2); seen.discard(1)\nqueue.extend([2, 3, 4])\ncounts.update('bb')\nordered.move_to_end('a')\n"
        "raw[0] = 99\ntext.write('xyz')\ntree['x']['y'][0] = 5\ndel tree['x']['y'][:0]\nuntouched"
    )

    assert all(notebook[name] is value for name, value in own.items())
    assert own["history"] == {"loss": [1.0, 0.5], "accuracy": [0.9]}
    assert own["alias"] is own["history"]["loss"]
    assert own["seen"] == {2}
    assert list(own["queue"]) == [2, 3, 4]
    assert own["counts"] == {"a": 2, "b": 3}
    assert list(own["ordered"]) == ["b", "a"]
    assert own["raw"] == b"cb"
    assert notebook["text"].getvalue() == "xyz"
    assert own["tree"] == {"x": {"y": [5]}}
    assert "untouched" not in applied.changed


def test_the_order_of_a_dict_is_the_ranks(notebook: Notebook) -> None:
    notebook.cell("d = {'a': 1, 'b': 2, 'c': 3}")

    notebook.train("v = d.pop('a'); d['a'] = v; d['z'] = 0")

    assert list(notebook["d"]) == ["b", "c", "a", "z"]


def test_plain_objects_of_every_make_change_in_place(notebook: Notebook) -> None:
    notebook.cell(
        "from dataclasses import dataclass, field\nimport enum\nfrom typing import NamedTuple\n"
        "class Mode(enum.Enum):\n    A = 1\n    B = 2\n"
        "@dataclass\nclass Config:\n    lr: float = 0.1\n    hist: list = field(default_factory=list)\n"
        "@dataclass(frozen=True)\nclass Frozen:\n    x: int = 1\n"
        "@dataclass(slots=True)\nclass Slotted:\n    x: int = 1\n    items: list = field(default_factory=list)\n"
        "class Old:\n    __slots__ = ('x', '__secret')\n    def hide(self, v): self.__secret = v\n    def tell(self): return self.__secret\n"
        "class Point(NamedTuple):\n    x: int\n    parts: list\n"
        "class Outer:\n    class Inner:\n        value = 1\n"
        "class Described:\n    @property\n    def twice(self): return self.x * 2\n    @staticmethod\n    def s(): return 's'\n    @classmethod\n    def c(cls): return cls.__name__\n"
        "config, frozen, slotted, old, point, mode = Config(), Frozen(), Slotted(), Old(), Point(1, []), Mode.B\n"
        "old.x = 1; old.hide(1)\ninner = Outer.Inner()\ndescribed = Described(); described.x = 2"
    )
    own = {
        name: notebook[name] for name in ("config", "frozen", "slotted", "old", "point", "inner", "described")
    }

    applied = notebook.train(
        "config.lr = 0.5; config.hist.append(1)\nobject.__setattr__(frozen, 'x', 2)\nslotted.x = 3; slotted.items.append(4)\n"
        "old.x = 5; old.hide(6)\npoint.parts.append(7)\nsame = mode is Mode.B\ninner.value = 8\n"
        "got = described.twice, described.s(), described.c(), old.tell()\ndescribed.x = 9\nmade = Config(lr=1.0)\nother = Mode.A"
    )

    assert not applied.remarks
    assert all(notebook[name] is value for name, value in own.items())
    assert (own["config"].lr, own["config"].hist) == (0.5, [1])
    assert own["frozen"].x == 2
    assert (own["slotted"].x, own["slotted"].items) == (3, [4])
    assert (own["old"].x, own["old"].tell()) == (5, 6)
    assert own["point"].parts == [7]
    assert notebook["same"]
    assert own["inner"].value == 8
    assert notebook["got"] == (4, "s", "Described", 6)
    assert own["described"].x == 9
    assert type(notebook["made"]) is notebook["Config"]
    assert notebook["other"] is notebook["Mode"].A


def test_functions_share_the_cells_namespace(notebook: Notebook) -> None:
    notebook.cell(
        "import functools\nscale = 2.0\ncounter = 0\n"
        "def helper(x): return x * scale\ndef outer(x): return helper(x) + 1\n"
        "def bump():\n    global counter\n    counter += 1\n"
        "def make(k):\n    def inner(x): return helper(x) + k\n    return inner\n"
        "inner5 = make(5)\n"
        "def twice(f):\n    @functools.wraps(f)\n    def wrapper(*a): return 2 * f(*a)\n    return wrapper\n"
        "@twice\ndef decorated(x, y=[1]): return helper(x) + len(y)\n"
        "@functools.lru_cache\ndef cached(x): return helper(x)\n"
        "partial = functools.partial(helper, 4)\n"
    )
    own = notebook["helper"]

    notebook.train(
        "bump(); bump(); scale = 3.0\n"
        "got = outer(1.0), inner5(1), decorated(1), cached(2), partial()\n"
        "def new(x): return helper(x) + scale\nalias = helper"
    )

    assert notebook["got"] == (4.0, 8.0, 8.0, 6.0, 12.0)
    assert notebook["counter"] == 2
    assert notebook["scale"] == 3.0
    assert notebook["helper"] is own
    assert notebook["alias"] is own
    assert notebook["new"].__globals__ is notebook.names
    assert notebook["new"](1) == 6.0


def test_variables_that_closures_share_come_back(notebook: Notebook) -> None:
    notebook.cell(
        "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n    return up, lambda: n\nup, read = counter()"
    )

    notebook.train("up(); up(); seen = read()")

    assert notebook["seen"] == 2
    assert notebook["read"]() == 2


def test_every_form_of_assignment_comes_back(notebook: Notebook) -> None:
    notebook.train(
        "from math import *\nimport json as js, os.path\nif (n := 3) > 2: pass\nsquares = [i * i for i in range(n)]\n"
        "a, (b, *c) = 1, (2, 3, 4)\nx: int = 5\nfor loop in range(2): pass\nexec('made = 6')\nglobals()['set'] = 7\n"
        "class K: pass\ndef f(): pass\nasync def g(): return 8\nwaited = await g()\n"
    )

    assert notebook["sqrt"](4) == 2
    assert notebook["js"].__name__ == "json"
    assert notebook["os"].path
    expected = {
        "n": 3,
        "squares": [0, 1, 4],
        "a": 1,
        "b": 2,
        "c": [3, 4],
        "x": 5,
        "loop": 1,
        "made": 6,
        "set": 7,
        "waited": 8,
    }
    assert {name: notebook[name] for name in expected} == expected
    assert "i" not in notebook


def test_deleted_names_are_gone(notebook: Notebook) -> None:
    notebook.cell("old, kept = 1, 2\ndef remove():\n    global kept\n    del kept")

    applied = notebook.train("del old\nremove()")

    assert set(applied.deleted) == {"old", "kept"}
    assert "old" not in notebook
    assert "kept" not in notebook


def test_a_cell_run_twice_does_not_send_its_own_results(training: Notebook) -> None:
    cell = "model = Net()\nwith torch.no_grad():\n    out = model(torch.ones(2, 4))\nit = iter([1])\n"
    training.train(cell)

    training.train(cell)

    assert training.captured is not None
    assert set(training.captured.names) == {"Net", "nn", "torch"}


def test_a_class_redefined_between_runs_is_the_new_one(notebook: Notebook) -> None:
    notebook.cell("class A:\n    def who(self): return 'old'\nfirst = A()")
    notebook.train("got = first.who(); second = A()")
    notebook.cell("class A:\n    def who(self): return 'new'")

    notebook.train("third = A()\ngot = first.who(), second.who(), third.who(), isinstance(first, A)")

    assert notebook["got"] == ("old", "old", "new", False)
    assert type(notebook["third"]) is notebook["A"]
    assert type(notebook["second"]) is type(notebook["first"])


def test_submodules_that_another_cell_imported_are_there(notebook: Notebook) -> None:
    pytest.importorskip("sklearn")
    notebook.cell(
        "import sklearn.datasets\nimport xml.dom.minidom\nimport xml as markup\ndef parse(s): return markup.dom.minidom.parseString(s)"
    )

    notebook.train(
        "n = len(sklearn.datasets.load_digits().target)\ntag = parse('<a/>').documentElement.tagName"
    )

    assert notebook["n"] == 1797
    assert notebook["tag"] == "a"


def test_a_module_beside_the_notebook_is_imported(notebook: Notebook) -> None:
    (notebook.folder / "beside.py").write_text("VALUE = 3\nclass Thing:\n    pass\ndef f(): return VALUE\n")
    import sys

    sys.path.insert(0, str(notebook.folder))
    try:
        notebook.cell("import beside\nfrom beside import f, Thing\nthing = Thing()")
        notebook.train("got = f(), beside.VALUE, isinstance(thing, Thing)\nthing.x = 1")
    finally:
        sys.path.remove(str(notebook.folder))
        sys.modules.pop("beside", None)

    assert notebook["got"] == (3, 3, True)
    assert notebook["thing"].x == 1


def test_names_of_ipython_stay_out(notebook: Notebook) -> None:
    notebook.cell("import threading\nIn = Out = get_ipython = exit = _ = _3 = _i = _dh = threading.Lock()")

    applied = notebook.train("got = [type(v).__name__ for v in (exit,)]\nfor _ in range(2): pass\n_oh = 1")

    assert set(applied.names) == {"got"}
    assert type(notebook["_"]).__name__ == "lock"


def test_our_own_train_is_never_captured(notebook: Notebook) -> None:
    notebook.cell(
        "from jupyter_train.runtime.train import train\nmine = train\ndef use(): return train.rank, mine.rank"
    )

    notebook.train("from jupyter_train.runtime.train import train\ngot = use()\nalias = train")

    assert notebook.captured is not None
    assert "train" not in notebook.captured.names
    assert notebook["got"] == (0, 0)
    assert notebook["alias"] is notebook["mine"]


def test_a_users_own_train_is_captured(notebook: Notebook) -> None:
    notebook.cell("def train(x): return x + 1")

    notebook.train("y = train(1)")

    assert notebook["y"] == 2


# ---------------------------------------------------------------- what does not come back


def test_names_that_cannot_travel_become_remarks(notebook: Notebook) -> None:
    applied = notebook.train(
        "import threading\nfile = open('/dev/null')\nlock = threading.Lock()\nholder = {'deep': [lock]}\n"
        "gen = (i for i in range(3))\nfine = 1"
    )
    notebook_names = set(applied.names)

    assert notebook_names == {"threading", "fine"}
    assert applied.remarks == (
        (
            "did not come back: file (an open file), lock (a lock), holder (its ['deep'][0]: a lock), "
            "gen (a running generator)"
        ),
    )


def test_one_attribute_that_cannot_travel_does_not_hold_back_the_rest(notebook: Notebook) -> None:
    notebook.cell("class Box: pass\nbox = Box()\nbox.items = {}")

    applied = notebook.train(
        "import threading\nbox.lock = threading.Lock()\nbox.x = 1\nbox.items['l'] = threading.Lock(); box.items['y'] = 2"
    )

    assert notebook["box"].x == 1
    assert notebook["box"].items == {"y": 2}
    assert not hasattr(notebook["box"], "lock")
    assert applied.remarks == ("did not come back: box.lock (a lock), box.items['l'] (a lock)",)


def test_a_failed_cell_brings_the_names_bound_so_far(training: Notebook) -> None:
    training.cell(MODEL + "class Broken(ValueError): pass")
    weight = training["model"].a.weight.detach().clone()

    applied = training.train(f"done = 1\n{LOOP}\nraise Broken('half way')\nnever = 2", fails=True)

    assert training["done"] == 1
    assert "never" not in training
    assert not torch.equal(training["model"].a.weight, weight)
    assert type(applied.error) is training["Broken"]
    assert str(applied.error) == "half way"


def test_an_error_that_does_not_travel_costs_nothing_else(notebook: Notebook) -> None:
    applied = notebook.train(
        "import threading\ndone = 1\nraise ValueError(threading.Lock())",
        fails=True,
    )

    assert notebook["done"] == 1
    assert applied.error is None


def test_keep_limits_what_comes_back(training: Notebook) -> None:
    training.cell(MODEL + "history = []\nextra = {}\ngone = 1")
    state = len(training["optimizer"].state)
    weight = training["model"].a.weight.detach().clone()

    applied = training.train(
        f"{LOOP}\nhistory.append(1)\nextra['x'] = 1\nother = 2\ndel gone", keep=["model", "loss"]
    )

    assert set(applied.names) == {"loss"}
    assert not torch.equal(training["model"].a.weight, weight)
    assert training["history"] == []
    assert training["extra"] == {}
    assert len(training["optimizer"].state) == state
    assert "gone" in training


def test_keep_brings_what_a_kept_name_stands_for(training: Notebook) -> None:
    training.cell(MODEL)
    weight = training["model"].a.weight.detach().clone()

    training.train(f"{LOOP}\nbest = {{'model': model}}", keep=["best"])

    assert training["best"]["model"] is training["model"]
    assert not torch.equal(training["model"].a.weight, weight)
    assert len(training["optimizer"].state) == 0


def test_a_captured_container_that_became_large_stays(notebook: Notebook) -> None:
    notebook.cell("import torch\ncache, small = {}, {}")

    applied = notebook.train("cache['x'] = torch.ones(10_000)\nsmall['y'] = 1", changed_bytes=1000)

    assert notebook["small"] == {"y": 1}
    assert notebook["cache"] == {}
    assert applied.changed == ("small",)
    assert 'run.result("cache")' in applied.remarks[0]
    assert notebook.elsewhere()["cache"]["x"].sum() == 10_000


def test_a_result_is_not_taken_for_that_of_another_capture(notebook: Notebook) -> None:
    notebook.cell("a = [1]")
    notebook.train("a.append(2)")
    other = notebook.capture("x = 1")

    with pytest.raises(ValueError, match="another capture"):
        apply_result(notebook.result, other, notebook.names)


def test_a_large_name_stays_until_it_is_asked_for(training: Notebook) -> None:
    applied = training.train("df = torch.ones(100_000)\nsmall = 1", large_bytes=1000)

    assert set(applied.names) == {"small"}
    assert "df" not in training
    assert "df is larger than" in applied.remarks[0]
    assert 'run.result("df")' in applied.remarks[0]
    assert training.told["prefix_bytes"] < 10_000 < training.told["size_bytes"]
    assert training.elsewhere()["df"].sum() == 100_000
    assert training.elsewhere()["small"] == 1


def test_a_captured_model_over_the_limit_of_what_is_made_comes_back_all_the_same(training: Notebook) -> None:
    training.cell("large = nn.Linear(100, 100)")

    applied = training.train("with torch.no_grad():\n    large.weight.fill_(1)", large_bytes=1000)

    assert training["large"].weight.sum().item() == 10_000
    assert not applied.remarks


def test_a_huge_captured_model_is_changed_in_place_when_it_is_asked_for(training: Notebook) -> None:
    training.cell("large = nn.Linear(100, 100)\nsmall = nn.Linear(2, 2)")
    cell = "with torch.no_grad():\n    large.weight.fill_(1)\n    small.weight.fill_(1)"
    large = training["large"]

    applied = training.train(cell, changed_bytes=1000)

    assert training["small"].weight.sum().item() == 4
    assert large.weight.sum().item() != 10_000
    assert applied.large == ("large",)
    assert any('run.result("large")' in remark for remark in applied.remarks)
    assert training.elsewhere()["large"].weight.sum().item() == 10_000

    assert training.captured is not None
    apply_large(training.result, training.captured, training.names)

    assert training["large"] is large
    assert large.weight.sum().item() == 10_000

    training.train(cell.replace("(1)", "(2)"), changed_bytes=1000, keep=["large"])

    assert large.weight.sum().item() == 20_000


def test_the_first_part_of_a_result_is_enough_for_a_kernel_elsewhere(training: Notebook) -> None:
    training.train("df = torch.ones(100_000)\nsmall = 1", large_bytes=1000)
    with open(training.result, "r+b") as file:
        file.truncate(training.told["prefix_bytes"])

    assert training.elsewhere() == {"small": 1}


# ---------------------------------------------------------------- other kernels, and meanwhile


def test_another_kernel_gets_what_came_back(training: Notebook) -> None:
    training.cell(MODEL + "history = []\nuntouched = [1]")
    training.train(LOOP + "history.append(len(untouched))\nbest = model\ndef predict(x): return model(x)")

    got = training.elsewhere()

    assert set(got) == {
        "model",
        "optimizer",
        "scheduler",
        "history",
        "epoch",
        "xb",
        "yb",
        "loss",
        "best",
        "predict",
    }
    assert got["best"] is got["model"]
    assert got["model"] is not training["model"]
    for ours, theirs in zip(got["model"].parameters(), training["model"].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert set(map(id, got["optimizer"].state)) == set(map(id, got["model"].parameters()))
    assert got["history"] == [1]
    got["model"].eval()
    assert torch.equal(got["predict"](torch.ones(1, 4)), got["model"](torch.ones(1, 4)))
    assert training["Net"].forward.__globals__ is training.names  # the notebook's class is as it was


def test_another_kernel_gets_what_is_new_where_the_captured_data_is_gone(notebook: Notebook) -> None:
    notebook.cell("base = [1]\ndef helper(x): return x + 1")
    notebook.train("base.append(2)\nfresh = {'a': [helper(1)]}\nalias = fresh['a']\nholder = [base]")
    assert notebook.captured is not None
    for ref in notebook.captured.refs:
        notebook.content.path(ref.key).unlink()

    found = notebook.elsewhere()

    assert found == {"fresh": {"a": [2]}, "alias": [2]}
    assert found["alias"] is found["fresh"]["a"]


def test_the_runs_values_win_over_what_the_notebook_did_meanwhile(notebook: Notebook) -> None:
    notebook.cell("a, b = 1, 2")

    applied = notebook.train("a = 10; c = 30; b", meanwhile="a = 'mine'; c = 'mine'; b = 'mine'")

    assert (notebook["a"], notebook["b"], notebook["c"]) == (10, "mine", 30)
    assert applied.remarks == ("a, c were assigned in the notebook meanwhile; the run's value replaced it",)


def test_an_object_that_cannot_be_rebuilt_here_costs_only_what_holds_it(notebook: Notebook) -> None:
    notebook.cell("import os\nhome = os.getpid()")
    applied = notebook.train(
        textwrap.dedent(
            """
            import os
            class Picky:
                def __init__(self, home): self.home = home
                def __reduce__(self): return make, (self.home,)
            def make(home):
                if os.getpid() == home: raise RuntimeError('not here')
                return Picky(home)
            a = [1]
            b = Picky(home)
            c = {'a': a}
            d = [b]
            e = 'last'
            """
        )
    )

    assert notebook["a"] == [1]
    assert notebook["c"]["a"] is notebook["a"]
    assert notebook["e"] == "last"
    assert "b" not in notebook
    assert "d" not in notebook
    assert any("b could not be rebuilt here: RuntimeError: not here" in remark for remark in applied.remarks)


# ---------------------------------------------------------------- size


def test_a_large_structure_costs_time_in_proportion(notebook: Notebook) -> None:
    notebook.cell("rows = [{'id': i, 'tags': [i]} for i in range(60_000)]\ncells = {}")

    applied = notebook.train("rows[59_999]['tags'].append('x')\nrows[3]['id'] = -1\nrows.append({})")

    assert applied.changed == ("rows",)
    assert notebook["rows"][59_999]["tags"] == [59_999, "x"]
    assert notebook["rows"][3]["id"] == -1
    assert len(notebook["rows"]) == 60_001
    assert notebook.told["size_bytes"] < 10_000
    assert notebook.told["load_cpu_s"] + notebook.told["pack_cpu_s"] < 5


def test_capture_refuses_in_the_notebook_before_anything_starts(notebook: Notebook) -> None:
    notebook.cell("import threading\nlock = threading.Lock()")

    with pytest.raises(CaptureError, match="lock"):
        notebook.capture("lock.acquire()")
    notebook.capture("x = 1")  # a cell that does not need it is not held up


def test_the_random_states_of_the_notebook_travel(notebook: Notebook) -> None:
    notebook.train("x = 1")
    assert notebook.told["random_state"]

    captured = notebook.capture("x = 1")
    assert np.random.get_state()[0] == "MT19937"
    assert captured.names == ()


@pytest.mark.gpu
def test_a_model_on_the_notebooks_gpu_stays_there(training: Notebook) -> None:
    """The stand-in has no GPU to put it on: the copy on the CPU trains, and the weights come back."""
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    training.cell("model = Net().cuda()\nview = model.a.weight.data[0]")
    weight = training["model"].a.weight

    training.train(
        "with torch.no_grad():\n    view.fill_(7)\n    model.b.bias.fill_(1)\nshared = float(model.a.weight[0, 0])"
    )

    assert weight.is_cuda
    assert training["shared"] == 7
    assert training["model"].b.bias.detach().sum().item() == 2
