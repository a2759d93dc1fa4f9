from __future__ import annotations

import builtins
import dis
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_train.transport.bytecode import code_names
from jupyter_train.transport.names import cell_names


def names(text: str) -> set[str]:
    return set(text.split())


CELLS = [
    # source, read, not read, written
    ("y = [x*i for i in data]", "x data", "i", "y"),
    ("y = {k: v for k, v in d.items() if k in keep}", "d keep", "k v", "y"),
    ("def f(a):\n  def g(): return a+b\n  return g\nz=f(1)()", "b", "a f g", "f z"),
    (
        "class A(Base):\n  w = width\n  v = w\n  def m(self): return helper(self.w)",
        "Base width helper",
        "w v self",
        "A",
    ),
    ("def f():\n  global count\n  count += 1\nf()", "count", "f", "count f"),
    ("from math import *\ny = sqrt(x)", "x sqrt", "", "y"),
    ("print(s := n + 1)\ny=[q := v for v in vs]", "n vs", "v", "s q y"),
    ("del old", "old", "", "old"),
    (
        "match cmd:\n  case [a, *rest]: r=a\n  case {'k': v, **kw}: r=v\n  case Point(x=px): r=px\n  case _: r=dflt\nr",
        "cmd Point dflt",
        "a rest v kw px r",
        "r a rest v kw px",
    ),
    ("match cmd:\n  case 1: r = 2\nr", "cmd r", "", "r"),
    ("try:\n  a()\nexcept Err as e:\n  print(e)", "a Err", "e", ""),
    ("try:\n  a = risky()\nexcept Err:\n  pass\nprint(a)", "risky Err a", "", "a"),
    ("try:\n  a = risky()\nexcept Err:\n  a = 0\nprint(a)", "risky Err", "a", "a"),
    (
        "try:\n  a = risky()\nexcept Err:\n  raise\nelse:\n  b = 1\nfinally:\n  c = 2\nc",
        "risky Err",
        "c b",
        "a b c",
    ),
    ("total += 1", "total", "", "total"),
    ("model = Net()\nmodel(x)", "Net x", "model", "model"),
    ("def train(): return model(x)\nmodel = Net()\ntrain()", "Net x", "model train", "model train"),
    ("def train(): return model(x)\ntrain()\nmodel = Net()", "Net x model", "train", "model train"),
    ("if c: model = Net()\nmodel(x)", "c Net x model", "", "model"),
    ("if c: model = A()\nelse: model = B()\nmodel(x)", "c A B x", "model", "model"),
    ("for i in range(3): loss = f(i)\nprint(loss)", "f loss", "", "i loss"),
    ("import os.path as p, torch.nn\nfrom a import b\np, torch, b", "", "p torch b", "p torch b"),
    ("await fetch(url)\nasync with s as t:\n  t", "fetch url s", "t", "t"),
    ("x: int = y\nz: T", "y T", "x", "x"),
    ("f = lambda q: q*scale\nf(1)", "scale", "q f", "f"),
    ("@deco(arg)\ndef f(x: Ann = dflt, *rest: Rest) -> R: ...", "deco arg Ann dflt R Rest", "x rest", "f"),
    ("@deco\ndef f(): return later\nlater = 1", "deco later", "", "f later"),
    ("print(f'{v:{w}}')", "v w", "", ""),
    ("a[i] = b; o.attr = c", "a i b o c", "", ""),
    ("with open(p) as fh: d = fh.read()\nd", "p", "fh d", "fh d"),
    ("with torch.no_grad(): d = f(x)\nd", "torch f x", "d", "d"),
    ("import contextlib\nwith contextlib.suppress(E):\n  k = risky()\nprint(k)", "E risky k", "", "k"),
    ("x = x + 1", "x", "", "x"),
    (
        "model.train()\nfor xb, yb in loader:\n  loss = lossf(model(xb), yb); loss.backward(); opt.step()",
        "model loader lossf opt",
        "xb yb loss",
        "xb yb loss",
    ),
    ("class A:\n  def m(self): return __class__, super().m(), K\nA()", "K", "__class__", "A"),
    ("gen = (x for x in xs if p(x) for _ in range(n))", "xs p n", "", "gen"),
    ("def f():\n  x = 1\n  class B:\n    y = x\n    z = zz\n  return B\nf()", "zz", "x", "f"),
    ("for epoch in range(2):\n  if epoch: use(prev)\n  prev = epoch", "use prev", "epoch", "epoch prev"),
    ("def a(): return b()\ndef b(): return late\nlate = src\na()", "src", "late a b", "a b late"),
    ("def f(): return late\nclass A:\n  now = f()\nlate = 1", "late", "", "f A late"),
    ("def never(): return big\nx = 1", "big", "", "never x"),
    ("x = 1\nif c: del x\nprint(x)", "c x", "", "x"),
    ("while True:\n  x = 1\n  break\nx", "x", "", "x"),
    ("(a, [b, *c]), d.e = v\na, b, c", "v d", "a b c", "a b c"),
]


@pytest.mark.parametrize(("source", "reads", "own", "writes"), CELLS, ids=[cell[0][:40] for cell in CELLS])
def test_a_cell_reads_what_it_does_not_assign_first(source: str, reads: str, own: str, writes: str) -> None:
    found = cell_names(source)

    assert names(reads) <= found.reads
    assert not names(own) & found.reads
    assert names(writes) <= found.writes


def test_a_star_import_is_seen() -> None:
    assert cell_names("from math import *").star
    assert not cell_names("from math import pi").star


def test_names_in_strings_count_where_code_is_made_of_strings() -> None:
    assert {"model", "x"} <= cell_names("y = eval('model(x)')").reads
    assert "model" in cell_names("globals()['model'].train()").reads
    assert "model" not in cell_names("print('model')").reads
    assert cell_names("exec(code)").dynamic
    assert "model" in cell_names("vars()['model'].train()").reads
    assert "model" in cell_names("locals()['model'].train()").reads
    assert "data" not in cell_names("print('data', vars(args), model.eval())").reads
    assert "data" not in cell_names("def f(): print('data', locals())\nf()").reads
    assert "low" in cell_names("df.query('a > @low and b')").reads
    assert not cell_names("df.query('a > @low and b')").dynamic


def test_a_syntax_error_has_the_line_of_the_users_cell() -> None:
    with pytest.raises(SyntaxError) as caught:
        cell_names("x = 1\ny = (", first_line=2, filename="<train>")

    assert caught.value.lineno == 3
    assert caught.value.filename == "<train>"


def test_code_that_parses_and_does_not_compile_is_a_syntax_error_too() -> None:
    with pytest.raises(SyntaxError) as caught:
        cell_names("x = 1\n\nreturn x", first_line=2)

    assert caught.value.lineno == 4


def test_future_lines_work() -> None:
    found = cell_names("from __future__ import annotations\ndef f(x: Unknown): return x")

    assert found.writes >= {"f"}


def test_words_hold_attributes_for_submodules() -> None:
    assert {"sklearn", "datasets", "load_digits"} <= cell_names("sklearn.datasets.load_digits()").words


def test_bytecode_is_read_as_dis_reads_it() -> None:
    """Our own quick decoding against the standard library's, on all of a large module."""
    source = Path(textwrap.__file__).read_text() + "\n" + Path(dis.__file__).read_text()
    for code in _codes(compile(source, "<m>", "exec")):
        expected = {
            instruction.argval
            for instruction in dis.get_instructions(code)
            if instruction.opname in ("LOAD_NAME", "LOAD_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL")
        }
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                expected |= code_names(inner).reads
        assert code_names(code).reads == expected


def _codes(code: types.CodeType) -> list[types.CodeType]:
    inner = [_codes(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [code, *(found for codes in inner for found in codes)]


# ---------------------------------------------------------------- any cell, against running it

NAMES = ["a", "b", "c", "f", "g"]
_name = st.sampled_from(NAMES)
_expression = st.one_of(
    _name,
    st.just("1"),
    st.tuples(_name, _name).map(lambda pair: f"({pair[0]}, {pair[1]})"),
    _name.map(lambda name: f"[{name} for {name} in (1, 2)]"),
    st.tuples(_name, _name).map(lambda pair: f"[{pair[0]} for _ in ({pair[1]},)]"),
    _name.map(lambda name: f"(lambda {name}: {name})(1)"),
    _name.map(lambda name: f"(lambda: {name})()"),
    st.tuples(_name, _name).map(lambda pair: f"({pair[0]} := {pair[1]})"),
)


def _indent(block: str) -> str:
    return textwrap.indent(block, "  ")


def _block(statement: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(statement, min_size=1, max_size=3).map("\n".join)


_simple = st.one_of(
    st.tuples(_name, _expression).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    _expression,
    _name.map(lambda name: f"del {name}"),
    st.tuples(_name, _expression).map(lambda pair: f"{pair[0]}: {pair[1]} = 1"),
    _name.map(lambda name: f"import math as {name}"),
    st.tuples(_name, _name).map(lambda pair: f"def {pair[0]}(): return {pair[1]}"),
    st.tuples(_name, _name).map(lambda pair: f"def {pair[0]}():\n  global {pair[1]}\n  {pair[1]} = 1"),
    _name.map(lambda name: f"callable({name}) and {name}()"),
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    block = _block(inner)
    return st.one_of(
        st.tuples(_expression, block, block).map(
            lambda p: f"if {p[0]}:\n{_indent(p[1])}\nelse:\n{_indent(p[2])}"
        ),
        st.tuples(_name, st.integers(0, 2), block).map(
            lambda p: f"for {p[0]} in range({p[1]}):\n{_indent(p[2])}"
        ),
        st.tuples(block, block).map(lambda p: f"try:\n{_indent(p[0])}\nexcept Exception:\n{_indent(p[1])}"),
        st.tuples(block, block).map(lambda p: f"try:\n{_indent(p[0])}\nfinally:\n{_indent(p[1])}"),
        st.tuples(_name, block).map(lambda p: f"class {p[0]}:\n{_indent(p[1])}"),
        block.map(lambda b: f"with manager():\n{_indent(b)}"),
        st.tuples(_expression, block).map(lambda p: f"match {p[0]}:\n  case 1:\n{_indent(_indent(p[1]))}"),
    )


_statement = st.recursive(_simple, _compound, max_leaves=8)


class _Suppress:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> bool:
        return True


@settings(max_examples=150, deadline=None)
@given(_block(_statement))
def test_no_name_that_a_cell_reads_is_missed(source: str) -> None:
    try:
        code = compile(source, "<cell>", "exec")
    except SyntaxError:
        return
    found = cell_names(source)
    # A notebook with only the names that the analysis saw is as good as the whole one.
    full: dict[str, Any] = {**dict.fromkeys(NAMES, 1), "manager": _Suppress}
    seen = {name: value for name, value in full.items() if name in found.reads}
    assert _ends(code, seen) == _ends(code, full)


def _ends(code: types.CodeType, namespace: dict[str, Any]) -> str:
    namespace = dict(namespace, __builtins__=builtins)
    try:
        exec(code, namespace)
    except Exception as error:
        return f"{type(error).__name__}: {error}".split(" at 0x")[0]
    return "done"
