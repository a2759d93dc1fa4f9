"""Which names of the notebook a cell reads, and which it may assign.

Read are the global names of the compiled cell, less those that it surely
assigns before anything reads them. What the notebook's functions and classes
read in turn is found while they are pickled.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from jupyter_train.transport.bytecode import IDENTIFIER, code_names
from jupyter_train.transport.flow import CELL_FLAGS, names_read_early

#: A text of so many characters is data, not code.
_LONG = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNames:
    """What a cell does with the notebook's names."""

    reads: frozenset[str]  #: must travel where the notebook has them; builtins may be among them
    guesses: frozenset[str]  #: those of ``reads`` that only stand in strings
    texts: frozenset[str]  #: words of all its strings
    writes: frozenset[str]  #: may be assigned or deleted at top level
    words: frozenset[str]  #: every name and attribute in it: which submodules it may use
    imports: frozenset[str]  #: modules it imports, and ``module.name`` of ``from module import name``
    star: bool  #: has ``from … import *``, so that it assigns names not seen here
    dynamic: bool  #: uses ``exec``, ``globals()`` and the like: names in its strings count as read


def cell_names(source: str, *, filename: str = "<cell>", first_line: int = 1) -> CellNames:
    """The names of the cell ``source``.

    Args:
        source: Python code, top-level ``await`` allowed, no magics.
        filename: what a SyntaxError calls the cell.
        first_line: line of the user's cell on which ``source`` starts, from 1.

    Raises:
        SyntaxError: with the line number of the user's cell.
    """
    try:
        tree = compile(source, filename, "exec", flags=CELL_FLAGS | ast.PyCF_ONLY_AST, dont_inherit=True)
        # Compiled from the text: `from __future__` lines change what annotations read.
        code = compile(source, filename, "exec", flags=CELL_FLAGS, dont_inherit=True)
    except SyntaxError as error:
        if error.lineno is not None:
            error.lineno += first_line - 1
        if error.end_lineno is not None:
            error.end_lineno += first_line - 1
        raise
    names = code_names(code, is_module=True)
    early = names_read_early(tree)
    # A function that nothing in the cell names may still be called in ways not seen.
    reads = set((names.reads & early) | (names.in_functions - names.writes))
    star = False
    dynamic = names.dynamic
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            star |= any(alias.name == "*" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < _LONG:
            texts.update(IDENTIFIER.findall(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "vars":
            dynamic |= not node.args  # of the notebook, not of an object
    guesses = (names.mentions | texts if dynamic else names.mentions) - reads
    return CellNames(
        reads=frozenset(reads | guesses),
        guesses=frozenset(guesses),
        texts=frozenset(texts),
        writes=names.writes,
        words=names.words,
        imports=names.imports,
        star=star,
        dynamic=dynamic,
    )
