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

import io
import pickle
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from types import CellType, FunctionType, ModuleType
from typing import Any

import cloudpickle
import numpy as np
from cloudpickle import cloudpickle as cloudpickle_internals

from jupyter_train.transport import functions
from jupyter_train.transport.arrays import array_parts, rebuild_array
from jupyter_train.transport.bytecode import code_names
from jupyter_train.transport.exclusions import is_our_train
from jupyter_train.transport.memory import Outgoing, Regions
from jupyter_train.transport.parametrized import is_parametrized, reduce_parametrized
from jupyter_train.transport.refusals import refusal
from jupyter_train.transport.transient import reduce_without, transient_attributes

Namespace = dict[str, Any]

#: Numbers that every pickle starts with.
RESERVED = 3

#: Buffers that other libraries offer (pyarrow) and that are larger travel as memory.
_OUT_OF_BAND_BYTES = 4096


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
    """

    def __init__(self, namespace: Namespace, *, given: Sequence[Any] = (), returning: bool = False) -> None:
        self.memory = Outgoing()
        self.sender = object()
        self._file = io.BytesIO()
        self._pickler = _Pickler(self._file, namespace, self.sender, self.memory, returning=returning)
        self._pickler.memo = _memo_of([namespace, self.sender, self.memory, *given])

    @property
    def found_names(self) -> set[str]:
        """Global names that the functions pickled so far read."""
        return self._pickler.found_names

    @property
    def found_modules(self) -> set[str]:
        """Modules pickled so far, by full name."""
        return self._pickler.found_modules

    @property
    def found_words(self) -> set[str]:
        """Names and attributes in the code pickled so far."""
        return self._pickler.found_words

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
        self._file.seek(dumped.start)
        self._file.truncate()
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

    def stream(self) -> memoryview:
        """The bytes of all dumps."""
        return self._file.getbuffer()

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
        stream: the bytes of the dumps, or a part that starts at a dump.
        receiver: namespace and memory of this process.
        given: as the writer's ``given``, with this process's own objects.
        buffers: as :attr:`Writer.buffers`.
    """

    def __init__(
        self,
        stream: bytes | memoryview,
        receiver: Receiver,
        *,
        given: Sequence[Any] = (),
        buffers: Iterable[tuple[int, int]] = (),
    ) -> None:
        known = [receiver.namespace, receiver, receiver.regions, *given]
        self._file = io.BytesIO(b"".join((_prelude(len(known)), stream)))
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


def our_object(module: str, name: str) -> Any:
    """An object of jupyter_train itself, which every process has its own of."""
    import importlib

    return getattr(importlib.import_module(module), name)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def __init__(
        self,
        file: io.BytesIO,
        namespace: Namespace,
        sender: object,
        memory: Outgoing,
        *,
        returning: bool,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._keep_in_band)
        self.found_names: set[str] = set()
        self.found_modules: set[str] = set()
        self.found_words: set[str] = set()
        self.buffers: list[tuple[int, int]] = []
        self._namespace = namespace
        self._sender = sender
        self._memory = memory
        self._reducers: dict[type, Any] = {
            np.ndarray: self._array,
            np.memmap: self._array,
            FunctionType: self._function,
            CellType: self._cell,
            ModuleType: self._module,
            functions.LruCache: self._lru_cache,
            cached_property: functions.reduce_cached_property,
        }
        self._torch: Any = None
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "nn"):
            from jupyter_train.transport import tensors

            self._torch = tensors
            self._tensor_memory = tensors.TensorMemory(memory, detach=returning)
            self._reducers |= {
                torch.Tensor: self._tensor,
                torch.nn.Parameter: self._tensor,
                torch.UntypedStorage: self._storage,
                torch.storage.TypedStorage: self._typed_storage,
            }

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        try:
            reducer = self._reducers[kind]
        except KeyError:
            reducer = self._reducers[kind] = self._reducer_for(kind)
        return NotImplemented if reducer is None else reducer(value)

    def _reducer_for(self, kind: type) -> Any:
        if issubclass(kind, type):
            return self._class
        if is_our_train(kind):
            return self._our_train
        reason = refusal(kind)
        if reason is not None:
            return self._refuse
        if is_parametrized(kind):
            return reduce_parametrized
        is_transient = transient_attributes(kind)
        if is_transient is not None:
            return partial(reduce_without, is_transient=is_transient)
        return None

    def _keep_in_band(self, buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _OUT_OF_BAND_BYTES:
            return True
        address = np.frombuffer(raw, np.uint8).__array_interface__["data"][0]
        self.buffers.append((self._memory.add(address, address + raw.nbytes, raw), raw.nbytes))
        return False

    def _array(self, array: np.ndarray[Any, Any]) -> Any:
        if array.dtype.hasobject:
            return NotImplemented
        return rebuild_array, (self._memory, *array_parts(array, self._memory))

    def _tensor(self, tensor: Any) -> Any:
        if not self._torch.is_plain(tensor):
            return NotImplemented
        parts = (self._memory, *self._tensor_memory.parts(tensor))
        if not tensor.__dict__:
            return self._torch.rebuild_tensor, parts
        return self._torch.rebuild_tensor, parts, tensor.__dict__, None, None, self._torch.set_attributes

    def _storage(self, storage: Any) -> Any:
        return self._torch.rebuild_storage, (self._memory, *self._tensor_memory.storage_parts(storage))

    def _typed_storage(self, storage: Any) -> Any:
        return self._torch.rebuild_typed_storage, self._torch.typed_storage_parts(storage)

    def _function(self, function: FunctionType) -> Any:
        if cloudpickle_internals._should_pickle_by_reference(function):
            return NotImplemented
        names = code_names(function.__code__)
        self.found_words |= names.words
        if functions.is_single_dispatch(function):
            return functions.reduce_single_dispatch(function)
        if function.__globals__ is not self._namespace:
            return self._dynamic_function_reduce(function)
        self.found_names |= names.reads
        arguments = (self._sender, function.__code__, function.__name__, function.__closure__)
        state = functions.function_state(function)
        return functions.make_function, arguments, state, None, None, functions.fill_function

    def _cell(self, cell: CellType) -> Any:
        state = functions.cell_state(cell)
        if state is None:
            return functions.make_cell, ()
        return functions.make_cell, (), state, None, None, functions.fill_cell

    def _class(self, cls: type) -> Any:
        return functions.reduce_class(cls, self._sender)

    def _lru_cache(self, cached: Any) -> Any:
        if cached.__module__ != "__main__":
            return NotImplemented
        return functions.make_lru_cache, (cached.__wrapped__, cached.cache_parameters())

    def _module(self, module: ModuleType) -> Any:
        self.found_modules.add(module.__name__)
        return NotImplemented

    def _our_train(self, value: Any) -> Any:
        return our_object, (type(value).__module__, "train")

    def _refuse(self, value: Any) -> Any:
        for name in ("stdout", "stderr", "stdin"):
            if value is getattr(sys, name):
                return getattr, (sys, name)
        raise pickle.PicklingError(refusal(type(value)))
