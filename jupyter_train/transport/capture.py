"""What a cell reads, from the notebook into files that every rank can load."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from jupyter_train.errors import CaptureError
from jupyter_train.record import ContentRef
from jupyter_train.transport.code import source_texts
from jupyter_train.transport.collection import no_collection
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.culprit import Culprit, find_culprit
from jupyter_train.transport.exclusions import is_users
from jupyter_train.transport.functions import LruCache
from jupyter_train.transport.memory import ALIGNMENT, NOTHING, Bytes, Layout
from jupyter_train.transport.names import CellNames, cell_names
from jupyter_train.transport.pickling import RESERVED, Dumped, Namespace, Writer, drop_temporaries
from jupyter_train.transport.randomness import random_state as current_random_state
from jupyter_train.transport.submodules import reached_submodules

#: Version of the files that :func:`capture` writes and ``load_capture`` reads.
FORMAT = 1

#: Regions of at least this size are files of their own, so that a data set is written and sent once.
_OWN_FILE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The first file of a capture: what the others are."""

    format: int
    names: tuple[str, ...]  #: in the order of the dumps; a last dump has the source of the functions
    given: tuple[str, ...]  #: those of ``names`` that are labels, not names of the notebook
    imports: tuple[str, ...]  #: submodules that code reaches through a captured package
    layout: Layout
    placement: npt.NDArray[np.int64]  #: of each region: which file after the stream, and offset in bytes
    buffers: tuple[tuple[int, int], ...]
    dropped: npt.NDArray[np.int64]  #: numbers of objects that the kernel has no more
    random_state: dict[str, Any] | None
    settings: Mapping[str, bytes] = field(default_factory=dict)  #: see ``settings.current_settings``


#: Of a run that captured nothing at all.
EMPTY = Envelope(
    format=FORMAT,
    names=(),
    given=(),
    imports=(),
    layout=NOTHING,
    placement=np.zeros((0, 2), np.int64),
    buffers=(),
    dropped=np.zeros(0, np.int64),
    random_state=None,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """What travelled, and the notebook's own objects for the way back."""

    refs: tuple[ContentRef, ...]  #: envelope, stream, small regions together, then large ones
    names: tuple[str, ...]
    sizes: dict[str, int]  #: bytes by name; what names share counts for the first
    remarks: tuple[str, ...]
    objects: tuple[Any, ...] = field(repr=False)  #: by number, None for temporaries
    bindings: dict[str, int] = field(repr=False)  #: identity of every name's value at the time


def capture(
    source: str,
    namespace: Namespace,
    *,
    content: ContentStore,
    extra: Iterable[str] = (),
    random_state: bool = True,
    settings: Mapping[str, bytes] | None = None,
    cell: CellNames | None = None,
    given: Mapping[str, Any] | None = None,
) -> Capture:
    """Capture what ``source`` reads of ``namespace``, in the kernel's main thread.

    Args:
        source: the cell, without its magic line.
        namespace: the notebook's namespace (``user_ns``).
        content: where the files go.
        extra: further names that travel where the notebook has them.
        random_state: whether the global random generators' states travel.
        settings: what earlier cells set for the whole process, as ``current_settings`` gives it.
        cell: the names of ``source``, where the caller has worked them out.
        given: values that travel beside the namespace, by labels that are no names.

    Raises:
        SyntaxError: ``source`` is no Python.
        CaptureError: something that the cell reads cannot travel; the message
            has the way to it. Or there is no room for the files.
    """
    if cell is None:
        cell = cell_names(source)
    with no_collection():
        pickled = _Pickled(namespace, cell, extra, given or {})
        layout, regions = pickled.writer.memory.regions()
        placement, files = _files(layout, regions)
        try:
            stream = content.put(pickled.writer.stream())
            refs = [content.put(*buffers, key=key) for buffers, key in files]
        except OSError as error:
            raise CaptureError(
                f"what the cell reads could not be written to {content.folder}: {error.strerror or error}"
            ) from error
        del regions, files
        sizes = pickled.sizes()
        buffers = tuple(pickled.writer.buffers)
        imports = reached_submodules(pickled.writer.found_modules, pickled.writer.found_words | cell.words)
        objects = pickled.finish()
        dropped = drop_temporaries(objects)
        envelope = Envelope(
            format=FORMAT,
            names=tuple(sizes),
            given=tuple(given or ()),
            imports=tuple(imports),
            layout=layout,
            placement=placement,
            buffers=buffers,
            dropped=np.array(dropped, np.int64),
            random_state=current_random_state() if random_state else None,
            settings=dict(settings or {}),
        )
        first = content.put(pickle.dumps(envelope, 5))
    return Capture(
        refs=(first, stream, *refs),
        names=tuple(sizes),
        sizes=sizes,
        remarks=(),
        objects=tuple(objects),
        bindings={name: id(value) for name, value in namespace.items()},
    )


class _Pickled:
    """The dumps of one capture, name by name."""

    def __init__(
        self, namespace: Namespace, cell: CellNames, extra: Iterable[str], given: Mapping[str, Any]
    ) -> None:
        self.writer = Writer(namespace)
        self._namespace = namespace
        self._given = given
        self._dumps: dict[str, Dumped] = {}
        self._dump_all(self._known({*cell.reads, *extra}))
        for label in given:
            # One after the other, each with what its functions read: what an argument's loading may call is there.
            self._dump_all({label})
        self.writer.dump(source_texts(self.writer.found_files))

    def _dump_all(self, todo: set[str]) -> None:
        while todo:
            for name in sorted(todo, key=self._rank):
                self._dump(name)
            # Names that functions read are known when the functions are pickled.
            todo = self._known(self.writer.found_names) - self._dumps.keys()

    def _known(self, names: Iterable[str]) -> set[str]:
        namespace = self._namespace
        return {name for name in names if name in namespace and is_users(name, namespace[name])}

    def _rank(self, name: str) -> tuple[int, str]:
        """Modules, then functions and classes, then values: what loading a value may call is there."""
        value = self._value(name)
        if isinstance(value, ModuleType):
            return 0, name
        return (1 if isinstance(value, FunctionType | type | LruCache) else 2), name

    def _value(self, name: str) -> Any:
        return self._given[name] if name in self._given else self._namespace[name]

    def _dump(self, name: str) -> None:
        value = self._value(name)
        try:
            self._dumps[name] = self.writer.dump(value)
        except Exception as error:
            culprit = find_culprit(value, name, Writer(self._namespace).refuses)
            if culprit is None:  # it travels alone: changed by another thread meanwhile, or too deep
                culprit = Culprit(path=name, type_name=type(value).__name__, reason=str(error))
            raise CaptureError(str(culprit)) from error

    def sizes(self) -> dict[str, int]:
        touched = self.writer.memory.touched_bytes
        return {
            name: dumped.end - dumped.start + touched(dumped.first_view, dumped.last_view)
            for name, dumped in self._dumps.items()
        }

    def finish(self) -> list[Any]:
        self._dumps.clear()
        return self.writer.finish()[RESERVED:]


def _files(
    layout: Layout, regions: list[Bytes]
) -> tuple[npt.NDArray[np.int64], Iterator[tuple[list[Any], str | None]]]:
    """Which file each region goes into: small ones together in the first, large ones alone."""
    placement = np.zeros((len(regions), 2), np.int64)
    packed: list[Any] = []
    alone: list[tuple[list[Any], str | None]] = []
    length = 0
    has_pack = any(region.nbytes < _OWN_FILE_BYTES for region in regions)
    for index, region in enumerate(regions):
        if region.nbytes >= _OWN_FILE_BYTES:
            placement[index] = len(alone) + has_pack, 0
            alone.append(([region], layout.hashes[index].hex()))
            continue
        padding = -length % ALIGNMENT
        packed += [bytes(padding), region]
        placement[index] = 0, length + padding
        length += padding + region.nbytes
    if has_pack:
        alone.insert(0, ([np.frombuffer(b"".join(packed), np.uint8)], None))
    return placement, iter(alone)
