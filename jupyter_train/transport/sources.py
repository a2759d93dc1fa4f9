"""Sources of local modules: from the kernel into one file, and from that into a rank's imports.

The file begins with a line of JSON that says what follows. On the host of the
rank it is unpacked into a folder named after its hash, first on ``sys.path``
for processes that the rank starts. The rank itself imports through a finder, so
that ``__file__`` is the user's own file wherever that is to be seen (data
beside a module is found), while the code is that of the moment of capture.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import linecache
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from jupyter_train.home import private_folder
from jupyter_train.transport.localmodules import LocalModule

#: An unpacked folder that no rank has used for so long goes.
KEPT_S = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """One module on the host of a rank."""

    path: str  #: where the notebook has it
    file: str  #: where it lies here
    is_package: bool

    @property
    def shown(self) -> str:
        """What ``__file__`` is: the user's own file where this host has it."""
        return self.path if os.path.exists(self.path) else self.file


def pack_sources(modules: Iterable[LocalModule]) -> bytes:
    """``modules`` as the bytes of one file; the same modules give the same bytes."""
    index, data = [], []
    for module in modules:
        index.append(
            {
                "name": module.name,
                "path": module.path,
                "is_package": module.is_package,
                "size_bytes": len(module.source),
            }
        )
        data.append(module.source)
    return b"".join([json.dumps(index).encode(), b"\n", *data])


def unpack_sources(packed: bytes | memoryview, folder: Path) -> dict[str, Unpacked]:
    """The modules in ``packed``, by name, as files in ``folder``.

    Any number of processes may do it at once.

    Raises:
        OSError: the folder cannot be written.
    """
    head, _, rest = bytes(packed).partition(b"\n")
    found: dict[str, Unpacked] = {}
    contents: dict[str, bytes] = {}
    at = 0
    for entry in json.loads(head):
        relative = entry["name"].replace(".", os.sep) + (
            f"{os.sep}__init__.py" if entry["is_package"] else ".py"
        )
        contents[relative] = rest[at : at + entry["size_bytes"]]
        at += entry["size_bytes"]
        found[entry["name"]] = Unpacked(
            path=entry["path"], file=str(folder / relative), is_package=entry["is_package"]
        )
    if folder.is_dir():
        os.utime(folder)
        return found
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    private_folder(part)
    try:
        for relative, content in contents.items():
            file = part / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        with contextlib.suppress(OSError):  # another rank was first
            os.rename(part, folder)
        if not folder.is_dir():
            raise OSError(f"the sources of local modules could not be moved to {folder}")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _remove_old(folder.parent)
    return found


def _remove_old(folder: Path) -> None:
    for other in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > KEPT_S:
                shutil.rmtree(other, ignore_errors=True)


def install_sources(modules: Mapping[str, Unpacked], folder: Path) -> None:
    """Let this process, and those it starts, import ``modules``."""
    sys.meta_path.insert(0, _Finder(modules))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


class _Finder(MetaPathFinder):
    def __init__(self, modules: Mapping[str, Unpacked]) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        module = self._modules.get(fullname)
        if module is None:
            return None
        shown = module.shown
        return importlib.util.spec_from_file_location(
            fullname,
            shown,
            loader=_Loader(fullname, shown, module),
            submodule_search_locations=[os.path.dirname(shown)] if module.is_package else None,
        )


class _Loader(SourceFileLoader):
    """Reads and compiles the unpacked file, under the name that the user knows."""

    def __init__(self, fullname: str, shown: str, module: Unpacked) -> None:
        super().__init__(fullname, shown)
        self._module = module
        self._unpacked = SourceFileLoader(fullname, module.file)

    def get_code(self, fullname: str) -> CodeType | None:
        """See `SourceFileLoader`; compiled files lie with the unpacked ones."""
        code = self._unpacked.get_code(fullname)
        return None if code is None else _renamed(code, self._module.path)

    def get_source(self, fullname: str) -> str | None:
        """See `SourceFileLoader`."""
        return self._unpacked.get_source(fullname)

    def exec_module(self, module: ModuleType) -> None:
        """See `Loader`. Tracebacks show the lines that run, whatever becomes of the user's file."""
        with contextlib.suppress(OSError, ImportError, SyntaxError):
            text = self.get_source(self.name) or ""
            lines = text.splitlines(keepends=True)
            linecache.cache[self._module.path] = (len(text), None, lines, self._module.path)
        super().exec_module(module)


def _renamed(code: CodeType, file: str) -> CodeType:
    """``code`` and everything in it, as compiled from ``file``."""
    constants = tuple(
        _renamed(constant, file) if isinstance(constant, CodeType) else constant
        for constant in code.co_consts
    )
    return code.replace(co_filename=file, co_consts=constants)
