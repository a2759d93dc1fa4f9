"""The way back: what the cell assigned, changed and deleted, from rank 0 into the notebook."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
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
from jupyter_train.transport.overlap import NOBODY, Others, Touch, sentences
from jupyter_train.transport.packing import Limits, Packing, a
from jupyter_train.transport.pickling import Namespace
from jupyter_train.transport.randomness import moved_on, random_state, restore_random_state
from jupyter_train.transport.resultfile import Header, ResultFile, write_result

#: A name that the cell made and that is over this size stays with the run until somebody asks for it.
LARGE_BYTES = 256 << 20

#: The same for what it changed in place.
CHANGED_BYTES = 2 << 30


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
    large: tuple[str, ...]  #: not set or changed: :func:`apply_large`, :func:`load_result`
    edited: tuple[Any, ...]  #: the objects that were changed in place
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
    changed_bytes: int = CHANGED_BYTES,
) -> ResultSummary:
    """Write what the cell did, on rank 0 in its main thread, also after a failure.

    Args:
        loaded: the capture that the cell ran on.
        namespace: as the cell left it.
        path: of the result; its folder is made where it is missing.
        keep: the names that come back, of any size; None: all.
        error: what ended the cell.
        large_bytes: names made by the cell and over this size do not come back by themselves.
        changed_bytes: the same for names that it changed in place.

    Raises:
        OSError: no room, or the folder cannot be written.
    """
    before = loaded.random_state  # None: the run has a seed of its own, and the notebook's states stay
    now = None if before is None else moved_on(random_state(), before)  # first: what is pickled may draw
    with no_collection():
        limits = Limits(made_bytes=large_bytes, changed_bytes=changed_bytes)
        packing = Packing(loaded, namespace, keep, limits)
        packing.add_edits()
        packing.add_names()
        if now:
            packing.add_random_state(now)
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


def apply_result(
    path: Path,
    capture: Capture,
    namespace: Namespace,
    *,
    waited: bool = True,
    others: Others = NOBODY,
) -> Applied:
    """Bring a result into the notebook, in the kernel's main thread.

    The notebook's own objects are changed in place; its classes and functions stay its own.

    Args:
        path: of the result.
        capture: what the run was started with.
        namespace: the notebook's.
        waited: whether the notebook did nothing since the capture. If it may have,
            random generators that it has drawn from go on where they are.
        others: what other runs have brought in since the capture.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no result, or that of another capture.
    """
    with no_collection(), ResultFile(path) as file:
        header = file.header
        _check_belongs(header, capture.objects)
        contents = _read(file, 0, namespace, capture.objects, others)
    returned = (contents.values.pop(RETURN_VALUE),) if RETURN_VALUE in contents.values else ()
    remarks = [*header.remarks, *contents.remarks]
    before = {name: id(namespace[name]) for name in (*contents.values, *header.deleted) if name in namespace}
    names: list[str] = []
    meanwhile: list[str] = []
    touched = dict(contents.touched)
    for name in (*contents.values, *header.deleted):
        touch = others.names.get(name)
        if touch is not None:
            touched[name] = touch
            if touch.wins:
                continue
        elif before.get(name) != capture.bindings.get(name):
            meanwhile.append(name)
        if name in contents.values:
            namespace[name] = contents.values[name]
            names.append(name)
        else:
            namespace.pop(name, None)
    remarks += sentences(touched)
    if meanwhile:
        remarks.append(_of_the_notebook(meanwhile))
    state = contents.random
    if not waited and capture.random_state is not None:
        moved = moved_on(random_state(), capture.random_state)
        state = {name: value for name, value in state.items() if name not in moved}
    restore_random_state(state)
    return Applied(
        names=tuple(names),
        changed=tuple(name for name in header.changed if not others.keeps(capture.bindings.get(name))),
        deleted=header.deleted,
        large=header.large,
        edited=tuple(contents.edited),
        remarks=tuple(remarks),
        error=contents.error,
        returned=returned,
    )


def apply_large(path: Path, capture: Capture, namespace: Namespace) -> None:
    """Change captured objects by what was too large for :func:`apply_result`. Kernel's main thread.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no result, or that of another capture, or it lacks that part.
    """
    with no_collection(), ResultFile(path) as file:
        _check_belongs(file.header, capture.objects)
        if not file.has(1):
            raise ValueError("the result was fetched without its large part")
        _read(file, 1, namespace, capture.objects)


def load_result(
    path: Path, refs: Sequence[ContentRef], content: ContentStore, *, large: bool = True
) -> dict[str, Any]:
    """What came back, for a kernel that did not start the run, or for names too large to come by themselves.

    Works on copies: the capture is loaded into a namespace of its own and the
    result applied to it, so nothing in the notebook changes.

    Args:
        path: of the result.
        refs: as ``Capture.refs``.
        content: where their files are.
        large: whether also what does not come back by itself, where the file holds it.

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
        try:
            objects, envelope, _ = load_objects(refs, content, namespace)
        except FileNotFoundError:  # made room for: what is new and refers to nothing captured is still there
            objects = None
    with ResultFile(path) as file:
        header = file.header
        if objects is None:
            return _without_capture(file, namespace, large=large)
        for number in envelope.dropped.tolist():
            objects[number] = None
        _check_belongs(header, objects)
        for section in range(len(header.sections) if large else 1):
            if file.has(section):
                contents = _read(file, section, namespace, objects)
                namespace.update(contents.values)
        is_whole = large and file.has(len(header.sections) - 1)
        missing = set() if is_whole else set(header.large)
    wanted = dict.fromkeys((*header.names, *header.changed, *header.large))
    return {name: namespace[name] for name in wanted if name in namespace and name not in missing}


def _without_capture(file: ResultFile, namespace: Namespace, *, large: bool) -> dict[str, Any]:
    """The names that can be put together of the result alone."""
    found: dict[str, Any] = {}
    for section in range(len(file.header.sections) if large else 1):
        if file.has(section):
            for (kind, key), value, why in file.load(section, namespace, None):
                if kind == "name" and why is None:
                    found[str(key)] = value
    return found


def _check_belongs(header: Header, objects: Sequence[Any]) -> None:
    """Numbers name objects: of another capture they would name the wrong ones."""
    if header.objects != len(objects):
        raise ValueError("the result belongs to another capture")


@dataclass(kw_only=True)
class _Contents:
    """One section, rebuilt here."""

    values: dict[str, Any] = field(default_factory=dict)
    edited: list[Any] = field(default_factory=list)
    random: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    remarks: list[str] = field(default_factory=list)
    touched: dict[str, Touch] = field(default_factory=dict)  #: names whose objects another run changed too


def _read(
    file: ResultFile, section: int, namespace: Namespace, objects: Sequence[Any], others: Others = NOBODY
) -> _Contents:
    """Rebuild a section and carry out its edits; names are for the caller to set."""
    contents = _Contents()
    edits: list[tuple[Any, list[Edit]]] = []
    for (kind, key), value, why in file.load(section, namespace, objects):
        if kind == "name":
            if why is None:
                contents.values[str(key)] = value
            else:
                contents.remarks.append(f"{key} could not be rebuilt here: {why}")
        elif kind in ("edit", "bytes"):
            own = objects[int(key)]
            if why is not None:
                contents.remarks.append(f"a change of {a(own)} could not be rebuilt here: {why}")
            elif kind == "edit":
                edits.append((own, value))
            else:  # before what follows is rebuilt as a view of this memory
                _edit(own, value, others, contents)
        elif why is None and kind == "random":
            contents.random = value
        elif why is None:
            contents.error = value
    for own, changes in edits:
        _edit(own, changes, others, contents)
    return contents


def _edit(own: Any, edits: list[Edit], others: Others, contents: _Contents) -> None:
    touch = others.objects.get(id(own))
    if touch is not None:
        contents.touched[touch.name] = touch
        if touch.wins:
            return
    contents.edited.append(own)
    try:
        apply_edits(own, edits)
    except CannotEdit as reason:
        contents.remarks.append(str(reason))
    except (
        Exception
    ) as reason:  # the notebook changed the object meanwhile: the other objects still come back
        kind = type(reason).__name__
        contents.remarks.append(f"{a(own)} could not be changed in place: {kind}: {reason}")


def _of_the_notebook(names: Sequence[str]) -> str:
    """The names were assigned while the run went on in the background."""
    more = len(names) - 5
    listed = ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")
    return f"{listed} {'was' if len(names) == 1 else 'were'} assigned in the notebook meanwhile; the run's value replaced it"
