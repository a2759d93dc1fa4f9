"""Which modules are the user's own files, beside the notebook or on its path, and what these import in turn.

A module is local when it is a Python file outside the standard library and
outside every folder of installed packages. Nothing is imported to find out.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

#: Source of one package; beyond it the ranks import what their host has.
MAX_PACKAGE_BYTES = 2_000_000

_OURS = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModule:
    """One of the user's own files, as the notebook would import it now."""

    name: str  #: in full: ``package.module``
    path: str  #: of the file, absolute
    is_package: bool
    source: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """Local modules that some code needs."""

    modules: tuple[LocalModule, ...]  #: by name
    too_large: tuple[str, ...]  #: packages left out


def local_closure(names: Iterable[str]) -> Closure:
    """The local modules among ``names``, their packages, and what they import in turn.

    Args:
        names: full names of modules; names that are no modules do no harm.
    """
    found: dict[str, LocalModule] = {}
    sizes: dict[str, int] = {}
    leads_on: dict[str, bool] = {}
    todo = [name for name in names if name != "__main__"]
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        for part in _with_parents(name):
            if part in leads_on:
                if leads_on[part]:
                    continue
                break
            spec = _spec(part)
            leads_on[part] = spec is not None and (is_local(spec.origin) or _is_namespace(spec))
            if spec is None or not leads_on[part]:
                break  # what is below an installed package is installed, too
            module = _read(part, spec)
            if module is None:
                continue
            found[part] = module
            sizes[top] = sizes.get(top, 0) + len(module.source)
            if sizes[top] <= MAX_PACKAGE_BYTES:
                todo += _imports(module)
                if module.is_package:
                    todo += _imported_below(part)
    too_large = {top for top, size in sizes.items() if size > MAX_PACKAGE_BYTES}
    kept = [found[name] for name in sorted(found) if name.partition(".")[0] not in too_large]
    return Closure(modules=tuple(kept), too_large=tuple(sorted(too_large)))


def is_local(origin: str | None) -> bool:
    """Whether the file ``origin``, as a module's specification has it, is the user's own source."""
    if not origin or not origin.endswith(".py") or not os.path.isabs(origin):
        return False
    return _is_outside(origin)


@cache
def _is_outside(origin: str) -> bool:
    if any(part in origin for part in _INSTALLED) or not os.path.isfile(origin):
        return False
    real = os.path.realpath(origin)
    return not real.startswith((_OURS, *_roots())) and not any(part in real for part in _INSTALLED)


@cache
def _roots() -> tuple[str, ...]:
    """Folders of the standard library and of installed packages."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(os.path.realpath(path) + os.sep for path in paths if path)


def _with_parents(name: str) -> Iterator[str]:
    """``a``, ``a.b``, ``a.b.c``."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _spec(name: str) -> ModuleSpec | None:
    """How ``name`` is imported; of a submodule only where its package is known."""
    module = sys.modules.get(name)
    if module is not None:
        return _own_spec(module)
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    parent, _, _ = name.rpartition(".")
    try:
        if not parent:
            return importlib.util.find_spec(name)
        above = _spec(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        return PathFinder.find_spec(name, list(above.submodule_search_locations))
    except (ImportError, ValueError, AttributeError, OSError):
        return None


def _own_spec(module: ModuleType) -> ModuleSpec | None:
    spec = getattr(module, "__spec__", None)
    return spec if isinstance(spec, ModuleSpec) else None


def _is_namespace(spec: ModuleSpec) -> bool:
    """A folder without ``__init__.py``: its modules may be local, it has no file itself."""
    return spec.origin is None and spec.submodule_search_locations is not None


def _read(name: str, spec: ModuleSpec) -> LocalModule | None:
    if not is_local(spec.origin):
        return None
    assert spec.origin is not None
    try:
        with open(spec.origin, "rb") as file:
            source = file.read()
    except OSError:
        return None
    return LocalModule(
        name=name,
        path=spec.origin,
        is_package=spec.submodule_search_locations is not None,
        source=source,
    )


def _imported_below(package: str) -> list[str]:
    """Submodules that the notebook has imported, in whatever way."""
    return [name for name in list(sys.modules) if name.startswith(f"{package}.")]


_imports_of: dict[str, tuple[bytes, tuple[str, ...]]] = {}


def _imports(module: LocalModule) -> tuple[str, ...]:
    """Names of modules that ``module`` imports anywhere in it, remembered until its source changes."""
    known = _imports_of.get(module.path)
    if known is None or known[0] != module.source:
        package = module.name if module.is_package else module.name.rpartition(".")[0]
        try:
            tree = ast.parse(module.source)
        except (SyntaxError, ValueError):  # the rank's import says it, where it is needed
            tree = ast.Module(body=[], type_ignores=[])
        known = _imports_of[module.path] = module.source, tuple(_imported_names(tree, package))
    return known[1]


def _imported_names(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = _absolute(node.module or "", node.level, package)
                if base:
                    yield base
                    yield from (f"{base}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(given))]
            ):
                if name in ("import_module", "__import__"):
                    yield given


def _absolute(module: str, level: int, package: str) -> str:
    """``from ..module import`` within ``package`` in full; empty where it leads out of it."""
    if not level:
        return module
    parts = package.split(".")
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *([module] if module else [])])
