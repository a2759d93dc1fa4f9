"""The source of functions, classes and modules of the notebook that a run took along, for people to read later.

``inspect`` finds functions by the line that their code names, but not the
classes of a notebook: their module is ``__main__``, which has no file. They are
looked up in the cells of their methods.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyter_train.transport.localmodules import LocalModule

MOST_CHARACTERS = 20_000  #: of one
MOST_IN_ALL = 100_000

_known: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def definition_texts(found: Mapping[str, FunctionType | type]) -> dict[str, str]:
    """Source by name of what is in ``found``, the shortest first while there is room.

    Left out is what is a part of a class in ``found``, and what has no source:
    generated code, or a cell that is not known any more.
    """
    texts: dict[str, str] = {}
    for name, value in found.items():
        if not _is_part(name, found) and (text := _text(value)):
            texts[name] = text
    return _bounded(texts)


def module_texts(modules: Iterable[LocalModule]) -> dict[str, str]:
    """Source by name of ``modules``, the shortest first while there is room."""
    return _bounded({module.name: _cut(module.source.decode(errors="replace")) for module in modules})


def _bounded(texts: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    room = MOST_IN_ALL
    for name, text in sorted(texts.items(), key=lambda item: len(item[1])):
        room -= len(text)
        kept[name] = text if room >= 0 else f"# {len(text):,} characters, which were too many to be kept"
    return {name: kept[name] for name in texts}


def _cut(text: str) -> str:
    too_long = len(text) - MOST_CHARACTERS
    return f"{text[:MOST_CHARACTERS]}\n# … and {too_long:,} characters more" if too_long > 0 else text


def _is_part(name: str, found: Mapping[str, FunctionType | type]) -> bool:
    owner = name.rpartition(".")[0]
    return bool(owner) and (isinstance(found.get(owner), type) or _is_part(owner, found))


def _text(value: FunctionType | type) -> str:
    # By identity: once a cell was run again, its functions and classes are others.
    if value not in _known:
        _known[value] = _cut(_source(value))
    return _known[value]


def _source(value: FunctionType | type) -> str:
    try:
        if isinstance(value, FunctionType):
            return inspect.getsource(value)
        return next((text for file in _files(value) if (text := _in_file(value.__qualname__, file))), "")
    except (OSError, TypeError, SyntaxError, IndexError, RecursionError):  # no such lines any more
        return ""


def _files(cls: type) -> Iterable[str]:
    """Files of the methods of ``cls``."""
    return dict.fromkeys(method.__code__.co_filename for method in _methods(cls))


def _methods(cls: type) -> Iterator[FunctionType]:
    for value in vars(cls).values():
        inner = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
        while isinstance(inner, functools.partial):
            inner = inner.func
        if isinstance(inner, FunctionType):
            yield inspect.unwrap(inner)


def _in_file(qualname: str, file: str) -> str:
    """The text of the last class of that name in ``file``, as far as ``linecache`` has its lines."""
    lines = linecache.getlines(file)
    text = "".join(lines)
    if f"class {qualname.rpartition('.')[2]}" not in text:
        return ""
    found = ""
    for path, node in _classes(ast.parse(text), ()):
        if ".".join(path) == qualname:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found = "".join(lines[first - 1 : node.end_lineno])
    return found


def _classes(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield (*path, child.name), child
            yield from _classes(child, (*path, child.name))
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _classes(child, (*path, child.name, "<locals>"))
        else:
            yield from _classes(child, path)
