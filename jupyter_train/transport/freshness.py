"""Whether a file was edited after the notebook imported it: the ranks import what the file is now.

The notebook looks after each cell at modules that are new since the one
before. A module imported earlier than that is judged by its compiled file,
in which Python writes the source's time and size.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec

from jupyter_train.transport.localmodules import Closure, is_local

_NAMED = 5  #: modules in one remark
_HEADER = 16  #: of a compiled file: magic number, flags, time of change, size


@dataclass(frozen=True, slots=True)
class _Known:
    spec: ModuleSpec  #: another one after a reload
    source: bytes | None  #: as it was imported; None: edited between its import and our first look


class Freshness:
    """What the files of local modules were when the notebook imported them. Kernel's main thread."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._passed: dict[str, object] = {}  #: specifications of modules that are not local

    def look(self) -> None:
        """Remember every local module that is new or was loaded again. Called after each cell."""
        for name, module in list(sys.modules.items()):
            spec = getattr(module, "__spec__", None)
            if spec is None or self._passed.get(name) is spec:
                continue
            known = self._known.get(name)
            if known is not None and known.spec is spec:
                continue
            if isinstance(spec, ModuleSpec) and is_local(spec.origin):
                self._remember(name, spec)
            else:
                self._passed[name] = spec

    def edited(self, name: str, source: bytes) -> bool:
        """Whether ``name`` is imported here, from another source than ``source``."""
        self.look()
        known = self._known.get(name)
        return known is not None and known.source != source

    def _remember(self, name: str, spec: ModuleSpec) -> None:
        assert spec.origin is not None
        try:
            stat = os.stat(spec.origin)
            with open(spec.origin, "rb") as file:
                source: bytes | None = file.read()
        except OSError:
            return
        if _compiled_from_another(spec.origin, stat):
            source = None
        self._known[name] = _Known(spec, source)


def _compiled_from_another(path: str, stat: os.stat_result) -> bool:
    """Whether the compiled file beside ``path`` says that an import read another source."""
    try:
        compiled = importlib.util.cache_from_source(path)
        with open(compiled, "rb") as file:
            header = file.read(_HEADER)
    except (OSError, NotImplementedError):
        return False
    if len(header) < _HEADER or header[:4] != importlib.util.MAGIC_NUMBER or any(header[4:8]):
        return False
    # Where Python could not have written it, an old one says nothing.
    if sys.dont_write_bytecode or not os.access(os.path.dirname(compiled), os.W_OK):
        return False
    time, size = (int.from_bytes(header[at : at + 4], "little") for at in (8, 12))
    return time != int(stat.st_mtime) & 0xFFFFFFFF or size != stat.st_size & 0xFFFFFFFF


#: This process's: modules are imported once per process.
freshness = Freshness()


def source_remarks(closure: Closure) -> Iterator[str]:
    """What is to be said of local modules that travel."""
    edited = [module.name for module in closure.modules if freshness.edited(module.name, module.source)]
    if edited:
        one = len(edited) == 1
        those = ", ".join(edited[:_NAMED]) + (", …" if len(edited) > _NAMED else "")
        yield (
            f"{those} {'was' if one else 'were'} edited after the notebook imported {'it' if one else 'them'}: the "
            f"ranks import {'it as it is' if one else 'them as they are'} now, the notebook after importlib.reload"
        )
    for package in closure.too_large:
        yield f"the source of {package} is too large to travel: the ranks import what their host has"
