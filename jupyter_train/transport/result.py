"""The way back: what the cell assigned, changed and deleted, from rank 0 into the notebook."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_train.record import ContentRef
from jupyter_train.transport.call import RETURN_VALUE
from jupyter_train.transport.capture import Capture
from jupyter_train.transport.collection import no_collection
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.edits import CannotEdit, apply_edits
from jupyter_train.transport.kinds import Edit
from jupyter_train.transport.load import Loaded, load_objects
from jupyter_train.transport.packing import Packing, a
from jupyter_train.transport.pickling import Namespace
from jupyter_train.transport.resultfile import Header, ResultFile, write_result

#: A name over this size stays with the run until somebody asks for it.
LARGE_BYTES = 256 << 20


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
    returned: tuple[Any, ...] = ()  #: the value that a function call gave, if it came


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
        packing = Packing(loaded, namespace, keep, large_bytes)
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
        ValueError: it is no result, or that of another capture.
    """
    with no_collection(), ResultFile(path) as file:
        header = file.header
        _check_belongs(header, capture.objects)
        remarks = list(header.remarks)
        namespace_before = {name: id(value) for name, value in namespace.items()}
        values, error = _apply_section(file, 0, namespace, capture.objects, remarks)
    returned = (values.pop(RETURN_VALUE),) if RETURN_VALUE in values else ()
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
        returned=returned,
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
        ValueError: it is no result, or that of another capture.
        CaptureError: the capture cannot be loaded here.
    """
    namespace: Namespace = {"__name__": "__main__", "__builtins__": __builtins__}
    with no_collection():
        objects, envelope, _ = load_objects(refs, content, namespace)
    for number in envelope.dropped.tolist():
        objects[number] = None
    with ResultFile(path) as file:
        header = file.header
        _check_belongs(header, objects)
        for section in range(len(header.sections)):
            if file.has(section):
                values, _ = _apply_section(file, section, namespace, objects, [])
                namespace.update(values)
        missing = set(header.large) if not file.has(len(header.sections) - 1) else set()
    wanted = dict.fromkeys((*header.names, *header.changed, *header.large))
    return {name: namespace[name] for name in wanted if name in namespace and name not in missing}


def _check_belongs(header: Header, objects: Sequence[Any]) -> None:
    """Numbers name objects: of another capture they would name the wrong ones."""
    if header.objects != len(objects):
        raise ValueError("the result belongs to another capture")


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
            remarks.append(f"a change of {a(objects[int(key)])} could not be rebuilt here: {why}")
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
            remarks.append(f"{a(own)} could not be changed in place: {type(reason).__name__}: {reason}")
    return values, error
