"""Names that a cell reads and that are nowhere: an error before anything starts.

Nowhere means neither in the cell, nor in the notebook, nor among the builtins.
A false alarm would refuse a cell that works, so anything that may bring a name
about in a way not seen (``exec``, ``globals()``, a star import, a string with
the name in it) lets the cell run.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

from jupyter_train.transport.bytecode import IDENTIFIER, CodeNames, code_names, global_loads
from jupyter_train.transport.certain import certain_reads
from jupyter_train.transport.exclusions import is_ipythons
from jupyter_train.transport.flow import CELL_FLAGS

#: Code that reads or imports one of these may make names that no analysis sees.
_MAKE_NAMES = frozenset(
    {"exec", "eval", "globals", "locals", "vars", "dir", "builtins"}
    | {"__builtins__", "__builtin__", "__import__", "get_ipython"}
)
#: The same of attributes, and of what may be imported under another name.
_REACH_NAMES = frozenset(
    {"__main__", "__globals__", "__dict__", "f_globals", "f_locals", "_getframe", "currentframe"}
    | {"getipython", "user_ns", "run_cell", "run_line_magic", "run_cell_magic"}
    | {"install", "runpy", "run_path"}
)

#: How names of every notebook are usually bound.
_USUAL = {
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "sns": "import seaborn as sns",
    "torch": "import torch",
    "nn": "from torch import nn",
    "F": "import torch.nn.functional as F",
    "optim": "from torch import optim",
    "DataLoader": "from torch.utils.data import DataLoader",
    "TensorDataset": "from torch.utils.data import TensorDataset",
    "Dataset": "from torch.utils.data import Dataset",
    "torchvision": "import torchvision",
    "transforms": "from torchvision import transforms",
    "tqdm": "from tqdm.auto import tqdm",
    "Path": "from pathlib import Path",
    "defaultdict": "from collections import defaultdict",
    "partial": "from functools import partial",
    "dataclass": "from dataclasses import dataclass",
    "datetime": "from datetime import datetime",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Undefined:
    """One name that is nowhere."""

    name: str
    line: int  #: of the user's cell, from 1
    remedy: str  #: "Did you mean 'model'?", or how it is usually imported; empty where nothing comes near


def undefined_names(
    source: str, namespace: Mapping[str, Any], *, first_line: int = 1, future: int = 0
) -> list[Undefined]:
    """Names that the cell surely reads and that are nowhere, in the order in which it meets them.

    Args:
        source: a cell that compiles.
        namespace: the notebook's names.
        first_line: line of the user's cell on which ``source`` starts.
        future: flags of ``from __future__`` lines in earlier cells: annotations are then not read.
    """
    flags = CELL_FLAGS | future
    tree = compile(source, "<cell>", "exec", flags=flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    code = compile(source, "<cell>", "exec", flags=flags, dont_inherit=True)
    names = code_names(code, is_module=True)
    nowhere = {
        name
        for name in names.reads - names.writes
        if name not in namespace and not hasattr(builtins, name) and not is_ipythons(name) and name != "train"
    }
    if not nowhere or _is_dynamic(names):
        return []
    nowhere -= _in_strings(tree)
    if nowhere:
        nowhere -= _made_by_functions(names.words, namespace, nowhere)
    stars = _from_stars(tree)
    if not nowhere or stars is None:
        return []
    loads = global_loads(code)
    bound = {*names.writes, *stars, *namespace}
    found: dict[str, Undefined] = {}
    for node in certain_reads(tree, namespace):
        if node.id in nowhere - stars and node.id not in found and (node.id, node.lineno) in loads:
            found[node.id] = Undefined(
                name=node.id, line=node.lineno + first_line - 1, remedy=_remedy(node.id, bound)
            )
    return list(found.values())


def _is_dynamic(names: CodeNames) -> bool:
    return bool(
        _MAKE_NAMES & (names.reads | names.writes)
        or _REACH_NAMES & names.words
        or {"sys", "modules"} <= names.words
    )


def _in_strings(tree: ast.Module) -> set[str]:
    """Words in the cell's strings: ``sympy.var("x y")`` and its like make names of them."""
    return {
        word
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in IDENTIFIER.findall(node.value)
    }


def _from_stars(tree: ast.Module) -> set[str] | None:
    """What the cell's star imports bring; None where a module is not imported here yet."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            module = sys.modules.get(node.module or "")
            if module is None or node.level:
                return None
            found.update(getattr(module, "__all__", vars(module)))
    return found


def _made_by_functions(words: Iterable[str], namespace: Mapping[str, Any], wanted: set[str]) -> set[str]:
    """Those of ``wanted`` that functions of the notebook, called from the cell, may bind."""
    todo = [word for word in words if word in namespace]
    seen = set(todo)
    made: set[str] = set()
    while todo:
        for code in _codes(namespace[todo.pop()], namespace):
            names = code_names(code)
            if _is_dynamic(names):
                return wanted
            made |= names.writes
            new = {word for word in names.words if word in namespace} - seen
            seen |= new
            todo += new
    return made & wanted


def _codes(value: Any, namespace: Mapping[str, Any]) -> Iterator[CodeType]:
    """The notebook's own code behind a value: of a function, a class, an instance."""
    if isinstance(value, MethodType):
        value = value.__func__
    value = inspect.unwrap(value) if isinstance(value, FunctionType) else value
    if isinstance(value, FunctionType):
        if value.__globals__ is namespace:
            yield value.__code__
        return
    kind = value if isinstance(value, type) else type(value)
    if kind.__module__ != "__main__":
        return
    for base in kind.__mro__:
        for held in vars(base).values():
            part = getattr(held, "__func__", None) or getattr(held, "fget", None) or held
            if isinstance(part, FunctionType) and part.__globals__ is namespace:
                yield part.__code__


def _remedy(name: str, bound: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [one for one in bound if not is_ipythons(one)], 1, 0.7)
    if near:
        return f"Did you mean {near[0]!r}?"
    if name in _USUAL:
        return f"Add  {_USUAL[name]}"
    if name in sys.stdlib_module_names:
        return f"Add  import {name}"
    near = difflib.get_close_matches(name, dir(builtins), 1, 0.75)
    return f"Did you mean {near[0]!r}?" if near else ""
