"""What a cell reads, from the notebook into files that every rank can load."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from jupyter_train.errors import CaptureError
from jupyter_train.record import ContentRef
from jupyter_train.transport.bytecode import IDENTIFIER
from jupyter_train.transport.code import source_texts
from jupyter_train.transport.collection import no_collection
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.culprit import Culprit, find_culprit
from jupyter_train.transport.devices import has_accelerator
from jupyter_train.transport.envelope import Envelope, Tables, seal
from jupyter_train.transport.exclusions import is_history, is_users
from jupyter_train.transport.freshness import source_remarks
from jupyter_train.transport.functions import LruCache
from jupyter_train.transport.limit import too_much
from jupyter_train.transport.localmodules import LocalModule, local_closure
from jupyter_train.transport.mappings import FileMappings
from jupyter_train.transport.memory import Elsewhere
from jupyter_train.transport.names import CellNames, cell_names
from jupyter_train.transport.parcels import file_away
from jupyter_train.transport.pickling import RESERVED, Dumped, Namespace, Writer, drop_temporaries
from jupyter_train.transport.randomness import random_state as current_random_state
from jupyter_train.transport.sources import pack_sources
from jupyter_train.transport.submodules import reached_submodules

#: A text of more characters is no code that the cell runs.
MAX_CODE = 100_000

_LONG = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """What travelled, and the notebook's own objects for the way back."""

    refs: tuple[ContentRef, ...]  #: envelope, its tables, then stream and memory
    names: tuple[str, ...]
    sizes: dict[str, int]  #: bytes by name; what names share counts for the first
    written_bytes: int  #: what was not in the content folder yet
    sources: dict[str, int]  #: bytes by name of the local modules
    remarks: tuple[str, ...]
    objects: tuple[Any, ...] = field(repr=False)  #: by number, None for temporaries
    bindings: dict[str, int] = field(repr=False)  #: identity of every name's value at the time
    random_state: dict[str, Any] | None = field(default=None, repr=False)  #: what travelled of it
    #: functions and classes that travelled as code, by qualified name
    definitions: dict[str, FunctionType | type] = field(default_factory=dict, repr=False)
    modules: tuple[LocalModule, ...] = field(default=(), repr=False)  #: that travelled as files


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
    limit_bytes: int | None = None,
    shared_disk: bool = False,
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
        limit_bytes: what may travel at most; None: any amount.
        shared_disk: whether the ranks see the files that are mapped here; then those do not travel.

    Raises:
        SyntaxError: ``source`` is no Python.
        CaptureError: something that the cell reads cannot travel; the message
            has the way to it. Or it is more than ``limit_bytes``, of which nothing
            was copied. Or there is no room for the files.
    """
    if cell is None:
        cell = cell_names(source)
    with no_collection():
        elsewhere = FileMappings().part_at if shared_disk else None
        pickled = Pickled(namespace, cell, extra, given or {}, limit_bytes, elsewhere=elsewhere)
        local = local_closure(cell.imports | pickled.writer.found_imports)
        layout, regions = pickled.writer.memory.regions()
        filing = file_away(pickled.writer.out, pickled.parts, layout, regions, elsewhere=elsewhere)
        written = content.written_bytes
        try:
            refs = [content.put(*parcel.buffers, key=parcel.key) for parcel in filing.parcels]
            sources = [content.put(pack_sources(local.modules))] if local.modules else []
        except OSError as error:
            raise CaptureError(
                f"what the cell reads could not be written to {content.folder}: {error.strerror or error}"
            ) from error
        pieces, placement, files = filing.pieces, filing.placement, filing.elsewhere
        del regions, filing
        sizes = pickled.sizes()
        remarks = pickled.remarks
        buffers = tuple(pickled.writer.buffers)
        imports = reached_submodules(pickled.writer.found_modules, pickled.writer.found_words | cell.words)
        objects = pickled.finish()
        dropped = drop_temporaries(objects)
        state = current_random_state() if random_state else None
        envelope = Envelope(
            tables=Tables(
                names=tuple(sizes),
                given=tuple(given or ()),
                imports=tuple(imports),
                layout=layout,
                placement=placement,
                elsewhere=files,
                buffers=buffers,
            ),
            pieces=pieces,
            dropped=np.array(dropped, np.int64),
            random_state=state,
            settings=dict(settings or {}),
            accelerator="torch" in sys.modules and has_accelerator(),
            sources=sources[0].key if sources else "",
        )
        first = [content.put(file) for file in seal(envelope)]
    return Capture(
        refs=(*first, *refs, *sources),
        names=tuple(sizes),
        sizes=sizes,
        written_bytes=content.written_bytes - written,
        sources={module.name: len(module.source) for module in local.modules},
        remarks=(*remarks, *source_remarks(local)),
        objects=tuple(objects),
        bindings={name: id(value) for name, value in namespace.items()},
        random_state=state,
        definitions=pickled.writer.found_definitions,
        modules=tuple(local.modules),
    )


class Pickled:
    """The dumps of one capture, name by name.

    Args:
        namespace: of the notebook.
        cell: the names of the cell; its reads travel.
        extra: further names.
        given: see :func:`capture`.
        limit_bytes: see :func:`capture`.
        refused: collects why a name cannot travel, by name; without it the first is an error.
        elsewhere: which memory is a file's that the ranks see too; see ``mappings``.

    Raises:
        CaptureError: see :func:`capture`.
    """

    def __init__(
        self,
        namespace: Namespace,
        cell: CellNames,
        extra: Iterable[str],
        given: Mapping[str, Any],
        limit_bytes: int | None,
        refused: dict[str, str] | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        extra = list(extra)
        self.writer = Writer(namespace, elsewhere=elsewhere)
        self._namespace = namespace
        self._given = given
        self._dumps: dict[str, Dumped] = {}
        self._limit_bytes = limit_bytes
        self._refused = refused
        self._cell = cell
        self._needed = {*(cell.reads - cell.guesses), *extra, *given}
        self._left: dict[str, str] = {}  # guesses that cannot travel, and why
        history = {name for name in self._needed if is_history(name) and name in namespace}
        self._dump_all(self._known({*cell.reads, *extra}) | history)
        for label in given:
            # One after the other, each with what its functions read: what an argument's loading may call is there.
            self._dump_all({label})
        self.writer.dump(source_texts(self.writer.found_files))
        self._check_size(self.writer.total_bytes)

    def _dump_all(self, todo: set[str]) -> None:
        while todo:
            for name in sorted(todo, key=self._rank):
                self._dump(name)
            # Names that functions read are known when the functions are pickled.
            found = self._known(self.writer.found_names) | self._known(self._guesses())
            todo = found - self._dumps.keys() - self._left.keys() - (self._refused or {}).keys()

    def _guesses(self) -> Iterator[str]:
        """Names that are read only if a string is what it may be."""
        yield from self.writer.guessed_names
        if self._cell.dynamic or self.writer.found_dynamic:
            yield from self._cell.texts
            for name in self._dumps:
                value = self._value(name)
                if isinstance(value, str) and len(value) < MAX_CODE:
                    yield from IDENTIFIER.findall(value)

    @property
    def remarks(self) -> list[str]:
        """What is to be said of names that stayed away."""
        return [f"left out, as only a text names it: {why}" for why in self._left.values()]

    @property
    def names(self) -> list[str]:
        """What travels, in order."""
        return list(self._dumps)

    @property
    def parts(self) -> list[Dumped]:
        """What each name added, in order."""
        return list(self._dumps.values())

    def _check_size(self, size_bytes: int) -> None:
        if self._limit_bytes is not None and size_bytes > self._limit_bytes:
            values = {name: self._value(name) for name in self._dumps}
            raise CaptureError(too_much(self.sizes(), values, self._limit_bytes))

    def _known(self, names: Iterable[str]) -> set[str]:
        namespace = self._namespace
        return {name for name in names if name in namespace and is_users(name, namespace[name])}

    def _rank(self, name: str) -> tuple[int, str]:
        """Modules, then functions and classes, then values: what loading a value may call is there.

        Of the values the long ones come first: objects are numbered in this order, and what is long
        keeps its numbers, and so its file, when a small value before it would have grown.
        """
        value = self._value(name)
        if isinstance(value, ModuleType):
            return 0, name
        if isinstance(value, FunctionType | type | LruCache):
            return 1, name
        return (2 if _is_long(value) else 3), name

    def _value(self, name: str) -> Any:
        return self._given[name] if name in self._given else self._namespace[name]

    def _is_guess(self, name: str) -> bool:
        return name not in self._needed and name not in self.writer.found_names

    def _dump(self, name: str) -> None:
        value = self._value(name)
        try:
            self._dumps[name] = self.writer.dump(value)
        except Exception as error:
            culprit = find_culprit(value, name, Writer(self._namespace).refuses)
            if culprit is None:  # it travels alone: changed by another thread meanwhile, or too deep
                culprit = Culprit(path=name, type_name=type(value).__name__, reason=str(error))
            if self._is_guess(name):
                self._left[name] = str(culprit)
                return
            if self._refused is not None:
                self._refused[name] = str(culprit)
                return
            reader = self.writer.found_names.get(name) if name not in self._cell.reads else None
            raise CaptureError(f"{culprit}{f' ({reader} reads it)' if reader else ''}") from error
        # The stream is in memory already; arrays and tensors are only counted so far, and the
        # error is better for knowing all of them.
        self._check_size(self.writer.out.tell())

    def sizes(self) -> dict[str, int]:
        touched = self.writer.memory.touched_bytes
        return {
            name: dumped.end - dumped.start + touched(dumped.first_view, dumped.last_view)
            for name, dumped in self._dumps.items()
        }

    def finish(self) -> list[Any]:
        self._dumps.clear()
        return self.writer.finish()[RESERVED:]


def _is_long(value: Any) -> bool:
    """Whether it has many elements, as far as its type tells: a length of the user's own may do anything."""
    kind = type(value)
    if kind in (list, tuple, dict, set, str, bytes) or kind.__module__.partition(".")[0] == "pandas":
        return hasattr(value, "__len__") and len(value) >= _LONG
    return isinstance(value, np.ndarray)
