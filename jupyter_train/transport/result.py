"""The way back: what the cell assigned, changed and deleted, from rank 0 into the notebook."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from jupyter_train.record import ContentRef
from jupyter_train.transport.capture import Capture
from jupyter_train.transport.collection import no_collection
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.culprit import find_culprit
from jupyter_train.transport.edits import CannotEdit, apply_edits
from jupyter_train.transport.exclusions import is_users
from jupyter_train.transport.kinds import Edit
from jupyter_train.transport.load import Loaded, load_objects
from jupyter_train.transport.pickling import Namespace, Writer
from jupyter_train.transport.resultfile import Header, ResultFile, Section, write_result

#: A name over this size stays with the run until somebody asks for it.
LARGE_BYTES = 256 << 20

_CULPRIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSummary:
    """What was packed."""

    names: tuple[str, ...]  #: assigned by the cell; they come back
    changed: tuple[str, ...]  #: captured, and changed in place
    large: tuple[str, ...]  #: over the limit: fetched by ``run.result(name)``
    deleted: tuple[str, ...]
    remarks: tuple[str, ...]
    size_bytes: int
    prefix_bytes: int  #: as much of the file holds what comes back by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a result did to the notebook."""

    names: tuple[str, ...]  #: set
    changed: tuple[str, ...]  #: captured names whose objects were changed in place
    deleted: tuple[str, ...]
    remarks: tuple[str, ...]
    error: BaseException | None  #: what ended the cell, where it travels


def pack_result(
    loaded: Loaded,
    namespace: Namespace,
    path: Path,
    *,
    keep: Collection[str] | None = None,
    error: BaseException | None = None,
    large_bytes: int = LARGE_BYTES,
) -> ResultSummary:
    """Write what the cell did, on rank 0 in its main thread, also after a failure.

    Args:
        loaded: the capture that the cell ran on.
        namespace: as the cell left it.
        path: of the result; its folder is made where it is missing.
        keep: the names that come back, of any size; None: all.
        error: what ended the cell.
        large_bytes: names over this size do not come back by themselves.

    Raises:
        OSError: no room, or the folder cannot be written.
    """
    with no_collection():
        packing = _Packing(loaded, namespace, keep, large_bytes)
        packing.add_edits()
        packing.add_names()
        if error is not None:
            packing.add_error(error)
        header = Header(
            names=tuple(packing.names),
            large=tuple(packing.large),
            changed=tuple(packing.changed),
            deleted=tuple(packing.deleted()),
            remarks=tuple(packing.remarks()),
            objects=len(loaded.objects),
        )
        size = write_result(path, header, packing.sections())
    with ResultFile(path) as file:
        prefix = file.prefix_bytes
    return ResultSummary(
        names=header.names,
        changed=header.changed,
        large=header.large,
        deleted=header.deleted,
        remarks=header.remarks,
        size_bytes=size,
        prefix_bytes=prefix,
    )


def apply_result(path: Path, capture: Capture, namespace: Namespace) -> Applied:
    """Bring a result into the notebook, in the kernel's main thread.

    The notebook's own objects are changed in place; its classes and functions stay its own.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no result.
    """
    with no_collection(), ResultFile(path) as file:
        header = file.header
        remarks = list(header.remarks)
        namespace_before = {name: id(value) for name, value in namespace.items()}
        values, error = _apply_section(file, 0, namespace, capture.objects, remarks)
    for name in (*values, *header.deleted):
        if namespace_before.get(name) != capture.bindings.get(name):
            remarks.append(f"{name} was assigned in the notebook meanwhile; the run's value replaced it")
    namespace.update(values)
    for name in header.deleted:
        namespace.pop(name, None)
    return Applied(
        names=tuple(values),
        changed=header.changed,
        deleted=header.deleted,
        remarks=tuple(remarks),
        error=error,
    )


def load_result(path: Path, refs: Sequence[ContentRef], content: ContentStore) -> dict[str, Any]:
    """What came back, for a kernel that did not start the run, or for names too large to come by themselves.

    Works on copies: the capture is loaded into a namespace of its own and the
    result applied to it, so nothing in the notebook changes.

    Returns:
        The names that the cell assigned or changed, large ones too where the
        file holds them.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: it is no result.
        CaptureError: the capture cannot be loaded here.
    """
    namespace: Namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    with no_collection():
        objects, envelope, _ = load_objects(refs, content, namespace)
    for number in envelope.dropped.tolist():
        objects[number] = None
    with ResultFile(path) as file:
        header = file.header
        for section in range(len(header.sections)):
            if file.has(section):
                values, _ = _apply_section(file, section, namespace, objects, [])
                namespace.update(values)
        missing = set(header.large) if not file.has(len(header.sections) - 1) else set()
    wanted = dict.fromkeys((*header.names, *header.changed, *header.large))
    return {name: namespace[name] for name in wanted if name in namespace and name not in missing}


def _apply_section(
    file: ResultFile, section: int, namespace: Namespace, objects: Sequence[Any], remarks: list[str]
) -> tuple[dict[str, Any], BaseException | None]:
    values: dict[str, Any] = {}
    error: BaseException | None = None
    edits: list[tuple[Any, list[Edit]]] = []
    for (kind, key), value, why in file.load(section, namespace, objects):
        if kind == "name" and why is None:
            values[str(key)] = value
        elif kind == "name":
            remarks.append(f"{key} could not be rebuilt here: {why}")
        elif kind == "edit" and why is None:
            edits.append((objects[int(key)], value))
        elif kind == "edit":
            remarks.append(f"a change of {_a(objects[int(key)])} could not be rebuilt here: {why}")
        elif why is None:
            error = value
    for own, changes in edits:
        try:
            apply_edits(own, changes)
        except CannotEdit as reason:
            remarks.append(str(reason))
        except (
            Exception
        ) as reason:  # the notebook changed the object meanwhile: the other objects still come back
            remarks.append(f"{_a(own)} could not be changed in place: {type(reason).__name__}: {reason}")
    return values, error


class _Packing:
    """Decides what goes where in one result."""

    def __init__(
        self, loaded: Loaded, namespace: Namespace, keep: Collection[str] | None, large_bytes: int
    ) -> None:
        self._loaded = loaded
        self._namespace = namespace
        self._keep = keep
        self._large_bytes = large_bytes
        self._small = Section(self._writer())
        self._rest: Section | None = None
        self.names: list[str] = []
        self.large: list[str] = []
        self.changed: list[str] = []
        self._remarks: list[str] = []

    def _writer(self) -> Writer:
        return Writer(self._namespace, given=self._loaded.objects, returning=True)

    def _large(self) -> Section:
        if self._rest is None:
            self._rest = Section(self._writer())
        return self._rest

    def sections(self) -> list[Section]:
        return [self._small] if self._rest is None else [self._small, self._rest]

    def _comes_back(self, name: str) -> bool:
        return self._keep is None or name in self._keep

    def _limit(self) -> int | None:
        return self._large_bytes if self._keep is None else None

    def deleted(self) -> list[str]:
        gone = (name for name in self._loaded.names if name not in self._namespace)
        return [name for name in gone if self._comes_back(name)]

    def remarks(self) -> list[str]:
        for cls, names in self._loaded.snapshots.changed_classes():
            listed = ", ".join(f"{cls.__qualname__}.{name}" for name in names)
            self._remarks.append(f"{listed} changed on the ranks; attributes of classes do not come back")
        return self._remarks

    def add_names(self) -> None:
        before = self._loaded.bindings
        missing = object()
        for name, value in list(self._namespace.items()):
            if before.get(name, missing) is value or not is_users(name, value) or not self._comes_back(name):
                continue
            try:
                if self._small.add(("name", name), value, limit_bytes=self._limit()) is not None:
                    self.names.append(name)
                else:
                    self._large().add(("name", name), value)
                    self._is_large(name)
            except Exception as error:
                self._not_back(name, value, error)

    def _is_large(self, name: str) -> None:
        self.large.append(name)
        limit = self._large_bytes >> 20
        self._remarks.append(f'{name} is larger than {limit} MB and stays with the run: run.result("{name}")')

    def _not_back(self, name: str, value: Any, error: Exception) -> None:
        culprit = find_culprit(value, name, self._writer().refuses, seconds=_CULPRIT_SECONDS)
        if culprit is None:
            self._remarks.append(f"{name} did not come back: {error}")
        elif culprit.path == name:
            self._remarks.append(f"{name} ({culprit.type_name}) did not come back: {culprit.reason}")
        else:
            self._remarks.append(
                f"{name} did not come back: {culprit.path} ({culprit.type_name}) is {culprit.reason}"
            )

    def add_error(self, error: BaseException) -> None:
        # Its frames stay here; its chain does too, the text of it is in the error event.
        try:
            self._small.add(("error", ""), error)
        except Exception:  # the error event has its type and text
            return

    def add_edits(self) -> None:
        changes = list(self._loaded.snapshots.changes())
        names = _names_by_object(self._loaded, {number for number, _, _ in changes})
        large = self._large_names(changes, names)
        for number, value, edits in changes:
            reaching = names.get(number, [])
            if self._keep is not None and not any(name in self._keep for name in reaching):
                continue
            stays = bool(reaching) and all(name in large for name in reaching)
            section = self._large() if stays else self._small
            if self._add_edits(section, number, value, edits, reaching):
                self.changed += [name for name in reaching if name not in self.changed and name not in large]
        for name in sorted(large):
            self._is_large(name)

    def _large_names(
        self, changes: Iterable[tuple[int, Any, list[Edit]]], names: dict[int, list[str]]
    ) -> set[str]:
        """Captured names with more changed bytes than come back by themselves."""
        limit = self._limit()
        if limit is None:
            return set()
        totals: dict[str, int] = {}
        for number, _, edits in changes:
            size = sum(getattr(part, "nbytes", 0) for edit in edits for part in edit[1:])
            for name in names.get(number, ()):
                totals[name] = totals.get(name, 0) + size
        return {name for name, total in totals.items() if total > limit}

    def _add_edits(
        self, section: Section, number: int, value: Any, edits: list[Edit], names: Sequence[str]
    ) -> bool:
        try:
            section.add(("edit", number), edits)
        except Exception:
            edits = [kept for edit in edits if (kept := self._what_travels(section, edit, value, names))]
            if not edits:
                return False
            section.add(("edit", number), edits)
        return True

    def _what_travels(self, section: Section, edit: Edit, value: Any, names: Sequence[str]) -> Edit | None:
        """The edit without the entries that cannot travel, each named in a remark."""
        verb, *arguments = edit
        path = names[0] if names else _a(value)
        if verb in ("items", "attributes", "slots"):
            given, gone = arguments
            kept = []
            for key, item in given:
                culprit = find_culprit((key, item), "", section.writer.refuses, seconds=_CULPRIT_SECONDS)
                if culprit is None:
                    kept.append((key, item))
                elif verb == "items" or not _is_internal(key, value):
                    where = f".{key}" if verb != "items" else f"[{key!r}]"
                    self._remarks.append(
                        f"{where} of {_a(value)} in {path} did not come back: {culprit.reason}"
                    )
            return (verb, kept, gone) if kept or gone else None
        culprit = find_culprit(arguments, "", section.writer.refuses, seconds=_CULPRIT_SECONDS)
        if culprit is None:
            return edit
        self._remarks.append(f"a change of {_a(value)} in {path} did not come back: {culprit.reason}")
        return None


def _names_by_object(loaded: Loaded, numbers: set[int]) -> dict[int, list[str]]:
    """By number, the captured names from which each of the objects can be reached."""
    wanted = {id(loaded.objects[number]): number for number in numbers}
    found: dict[int, list[str]] = {}
    if not wanted:
        return found
    for name in loaded.names:
        if name in loaded.bindings:
            for number in _reached(loaded.bindings[name], wanted, id(loaded.bindings)):
                found.setdefault(number, []).append(name)
    return found


#: Where a search for objects ends: what these refer to belongs to everybody.
_CLOSED = (type, ModuleType, BuiltinFunctionType, str, int, float, bytes)

#: A list of a million numbers is passed over at the speed of C.
_LEAVES = frozenset({str, int, float, bytes, bool, complex, type(None)})
_MANY = 100


def _reached(root: Any, wanted: dict[int, int], closed: int) -> set[int]:
    seen: set[int] = {closed}
    todo = [root]
    reached: set[int] = set()
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, _CLOSED):
            continue
        seen.add(id(value))
        if id(value) in wanted:
            reached.add(wanted[id(value)])
            if len(reached) == len(wanted):
                break
        if isinstance(value, FunctionType):
            todo += [value.__dict__, *(value.__closure__ or ()), *(value.__defaults__ or ())]
        else:
            parts = gc.get_referents(value)
            if len(parts) < _MANY or not _LEAVES.issuperset(map(type, parts)):
                todo += parts
    return reached


def _is_internal(name: str, owner: Any) -> bool:
    """Whether an attribute is a library's own business: a cache, a handle of the process."""
    return name.startswith("_") and type(owner).__module__ != "__main__"


def _a(value: Any) -> str:
    kind = type(value)
    return f"a {kind.__qualname__}"
