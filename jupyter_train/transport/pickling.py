"""One pickle in several dumps: what objects share stays shared, and each dump can be undone.

The pickler's memo numbers every object it writes, and the unpickler numbers
the objects it makes in the same way. So the number of an object names it on
both sides, which the way back rests on: the rank's pickler starts with the
objects that it was given already in its memo, and the kernel's unpickler with
the notebook's own objects under the same numbers. A captured object, written
by the rank, is then two bytes that mean "yours".

The first three numbers are the namespace, the process that loads, and memory.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import FunctionType
from typing import Any

from jupyter_train.transport.aliases import Aliases
from jupyter_train.transport.memory import Elsewhere, Outgoing, Regions
from jupyter_train.transport.pickler import NotebookPickler
from jupyter_train.transport.stream import Buffer, OutStream, reader

Namespace = dict[str, Any]

#: Numbers that every pickle starts with.
RESERVED = 3


@dataclass(eq=False)
class Receiver:
    """What the rebuilding functions need of the process that loads."""

    namespace: Namespace
    regions: Regions
    known_classes: set[type] = field(default_factory=set)  #: made here, not by this load


@dataclass(frozen=True, slots=True)
class Dumped:
    """What one dump added."""

    start: int  #: bytes in the stream
    end: int
    first_view: int  #: views of memory
    last_view: int  #: exclusive
    mark: list[Any]  #: the list around the object; its number in the memo is the dump's first


class Writer:
    """Pickles objects of one process for another.

    Args:
        namespace: the namespace that functions of the notebook live in.
        given: objects that the other side has, from number ``RESERVED`` on;
            None where it has none under that number.
        returning: on the way back to the kernel: graphs are left behind.
        elsewhere: which memory is a file's that the other side sees too.
    """

    def __init__(
        self,
        namespace: Namespace,
        *,
        given: Sequence[Any] = (),
        returning: bool = False,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.memory = Outgoing(elsewhere=elsewhere)
        self.sender = object()
        self._file = OutStream()
        self._pickler = NotebookPickler(self._file, namespace, self.sender, self.memory, returning=returning)
        self._pickler.memo = _memo_of([namespace, self.sender, self.memory, *given])

    def use_aliases(self, aliases: Aliases) -> None:
        """From now on, new views of these objects' memory are written as such."""
        self._pickler.aliases = aliases

    @property
    def found_names(self) -> dict[str, str]:
        """Global names that the functions pickled so far read, with one that does."""
        return self._pickler.found_names

    @property
    def guessed_names(self) -> set[str]:
        """Words in strings that may be code, and in annotations that are strings."""
        return self._pickler.guessed_names

    @property
    def found_dynamic(self) -> bool:
        """Whether a function pickled so far uses ``eval``, ``globals()`` and the like."""
        return self._pickler.found_dynamic

    @property
    def found_modules(self) -> set[str]:
        """Modules pickled so far, by full name."""
        return self._pickler.found_modules

    @property
    def found_imports(self) -> set[str]:
        """Modules that loading the objects or running their code imports, among names that are none."""
        return self._pickler.found_imports | self._pickler.found_modules

    @property
    def found_words(self) -> set[str]:
        """Names and attributes in the code pickled so far."""
        return self._pickler.found_words

    @property
    def found_files(self) -> set[str]:
        """Files of the functions pickled so far."""
        return self._pickler.found_files

    @property
    def found_definitions(self) -> dict[str, FunctionType | type]:
        """Functions and classes pickled so far by their code, by qualified name."""
        return self._pickler.found_definitions

    @property
    def buffers(self) -> list[tuple[int, int]]:
        """View and length of each buffer that the stream refers to by order."""
        return self._pickler.buffers

    def dump(self, value: Any) -> Dumped:
        """Add ``value``. After an exception the stream is as it was before.

        Raises:
            Exception: whatever the object's own pickling raises.
        """
        mark = [value]
        start, views, buffers = self._file.tell(), len(self.memory), len(self.buffers)
        dumped = Dumped(start, start, views, views, mark)
        try:
            self._pickler.dump(mark)
        except BaseException:
            self.undo(dumped, buffers=buffers)
            raise
        return Dumped(start, self._file.tell(), views, len(self.memory), mark)

    def refuses(self, value: Any) -> Exception | None:
        """The error of adding ``value``, None where it travels; nothing is added."""
        try:
            self.undo(self.dump(value))
        except Exception as error:
            return error
        return None

    def undo(self, dumped: Dumped, *, buffers: int | None = None) -> None:
        """Take the latest dump back."""
        self._file.truncate(dumped.start)
        self.memory.forget(dumped.first_view)
        if buffers is None:
            buffers = sum(view < dumped.first_view for view, _ in self.buffers)
        del self.buffers[buffers:]
        memo = self._pickler.memo.copy()
        if id(dumped.mark) in memo:
            first = memo[id(dumped.mark)][0]
            self._pickler.memo = {key: entry for key, entry in memo.items() if entry[0] < first}

    def numbers(self, dumps: Sequence[Dumped]) -> list[int]:
        """The number of the first object of each of ``dumps``."""
        memo = self._pickler.memo.copy()
        return [memo[id(dumped.mark)][0] for dumped in dumps]

    @property
    def out(self) -> OutStream:
        """The bytes of all dumps, in pieces."""
        return self._file

    @property
    def total_bytes(self) -> int:
        """About what everything dumped so far takes, memory included."""
        return self._file.tell() + self.memory.touched_bytes(0, len(self.memory))

    def stream(self) -> memoryview:
        """The bytes of all dumps, as one."""
        return self._file.joined()

    def finish(self) -> list[Any]:
        """Every object written, by its number; the writer is spent."""
        entries = self._pickler.memo.copy()
        objects: list[Any] = [None] * len(entries)
        for number, value in entries.values():
            objects[number] = value
        self._pickler.clear_memo()
        self._pickler.globals_ref.clear()
        self.memory.release()
        return objects


class Reader:
    """Loads what a :class:`Writer` wrote, dump by dump.

    Args:
        stream: the bytes of the dumps, or a part that starts at a dump; several are read one after the other.
        receiver: namespace and memory of this process.
        given: as the writer's ``given``, with this process's own objects.
        buffers: as :attr:`Writer.buffers`.
    """

    def __init__(
        self,
        stream: Buffer | Sequence[Buffer],
        receiver: Receiver,
        *,
        given: Sequence[Any] = (),
        buffers: Iterable[tuple[int, int]] = (),
    ) -> None:
        known = [receiver.namespace, receiver, receiver.regions, *given]
        parts = [stream] if isinstance(stream, bytes | bytearray | memoryview) else stream
        self._file = reader([_prelude(len(known)), *parts])
        self._unpickler = pickle.Unpickler(self._file, buffers=chain(known, _buffers(receiver, buffers)))
        self._unpickler.load()

    def load(self) -> Any:
        """The object of the next dump.

        Raises:
            Exception: whatever rebuilding the object raises. The numbers of
                later objects are then unknown: read no further.
        """
        return self._unpickler.load()[0]

    def objects(self) -> list[Any]:
        """Every object loaded so far, by its number."""
        entries = self._unpickler.memo.copy()
        return [entries.get(number) for number in range(max(entries, default=-1) + 1)]


def drop_temporaries(objects: list[Any]) -> list[int]:
    """Replace by None what nobody but ``objects`` refers to, and return the numbers.

    Reducers make objects to describe an object: a copy of its state, a tuple
    of arguments. The other side's copy may then be a part of the real object
    while ours is thrown away: such a number must not be taken for a name.
    """
    # A list's reference, taken as below: measured, because it differs between versions of Python.
    probe = [object()]
    alone = sys.getrefcount(probe[0])
    dropped: list[int] = []
    while True:
        before = len(dropped)
        # Containers are numbered before their contents, tuples after: one order for each.
        for order in (range(len(objects)), range(len(objects) - 1, -1, -1)):
            for number in order:
                if objects[number] is not None and sys.getrefcount(objects[number]) <= alone:
                    objects[number] = None
                    dropped.append(number)
        if len(dropped) == before:
            return sorted(dropped)


def _memo_of(known: Sequence[Any]) -> dict[int, tuple[int, Any]]:
    """A pickler's memo of ``known``, as many entries as objects: the next number is their count."""
    memo: dict[int, tuple[int, Any]] = {}
    for number, value in enumerate(known):
        held = object() if value is None or id(value) in memo else value
        memo[id(held)] = (number, held)
    return memo


def _prelude(count: int) -> bytes:
    """A pickle that gives the next ``count`` buffers the next numbers.

    An unpickler's memo cannot be set from a dict (CPython loses its entries),
    but "push the next buffer" takes any object.
    """
    one = pickle.NEXT_BUFFER + pickle.MEMOIZE + pickle.POP
    return pickle.PROTO + b"\x05" + one * count + pickle.NONE + pickle.STOP


def _buffers(receiver: Receiver, buffers: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
    for number, length in buffers:
        region, offset = receiver.regions.view(number)
        yield region[offset : offset + length].data
