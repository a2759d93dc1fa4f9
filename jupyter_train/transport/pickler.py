"""One pickler for all that a notebook has: cloudpickle, with reducers where it falls short.

Functions share the namespace, memory travels beside the stream, and what
belongs to one process is refused with the reason.
"""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import sys
from functools import cached_property, partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import cloudpickle
import numpy as np
from cloudpickle import cloudpickle as cloudpickle_internals

from jupyter_train.transport import functions
from jupyter_train.transport.aliases import Aliases, view_as_array, view_as_tensor
from jupyter_train.transport.arrays import array_parts, rebuild_array, rebuild_memmap
from jupyter_train.transport.bytecode import code_names
from jupyter_train.transport.devices import rebuild_device
from jupyter_train.transport.exceptions import has_own_constructor, reduce_exception
from jupyter_train.transport.exclusions import is_our_train
from jupyter_train.transport.memory import Outgoing
from jupyter_train.transport.parametrized import is_parametrized, reduce_parametrized
from jupyter_train.transport.refusals import refusal
from jupyter_train.transport.stream import OutStream
from jupyter_train.transport.transient import reduce_without, transient_attributes

#: Buffers that other libraries offer (pyarrow) and that are larger travel as memory.
_OUT_OF_BAND_BYTES = 4096

#: Methods of a kernel, and what a rank has in their place.
_KEYBOARD = {"getpass": ("getpass", "getpass"), "raw_input": ("builtins", "input")}

#: What the dataclasses module compares by identity; cloudpickle would make others of them.
_SENTINELS = {
    type(value): name
    for name, value in vars(dataclasses).items()
    if name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
}


def _reduce_sentinel(value: Any) -> Any:
    return getattr, (dataclasses, _SENTINELS[type(value)])


def our_object(module: str, name: str) -> Any:
    """An object that every process has its own of."""
    return getattr(importlib.import_module(module), name)


class NotebookPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Reduces what the notebook has; :class:`~jupyter_train.transport.pickling.Writer` drives it.

    Args:
        file: where the stream goes.
        namespace: whose functions share it on the other side too.
        sender: stands for the process that loads.
        memory: collects the memory of arrays and tensors.
        returning: on the way back to the kernel: graphs are left behind.
    """

    def __init__(
        self,
        file: OutStream,
        namespace: dict[str, Any],
        sender: object,
        memory: Outgoing,
        *,
        returning: bool,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._keep_in_band)
        self.aliases: Aliases | None = None  #: of memory that the other side has
        self.found_names: dict[str, str] = {}
        self.guessed_names: set[str] = set()
        self.found_dynamic = False
        self.found_modules: set[str] = set()
        self.found_words: set[str] = set()
        self.found_files: set[str] = set()
        self.found_imports: set[str] = set()
        self.found_definitions: dict[str, FunctionType | type] = {}
        self.buffers: list[tuple[int, int]] = []
        self._namespace = namespace
        self._sender = sender
        self._memory = memory
        self._reducers: dict[type, Any] = {
            np.ndarray: self._array,
            np.memmap: self._array if returning else self._mapped_array,
            FunctionType: self._function,
            CellType: self._cell,
            MethodType: self._method,
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
                torch.device: self._device,
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
        if kind.__module__ == "pandas.core.internals.blocks":
            return self._block
        if kind in _SENTINELS:
            return _reduce_sentinel
        if has_own_constructor(kind):
            return reduce_exception
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
        shared = self._shared_by_array(array)
        if shared is not None:
            return view_as_array, shared
        return rebuild_array, (self._memory, *array_parts(array, self._memory))

    def _shared_by_array(self, array: np.ndarray[Any, Any]) -> tuple[Any, ...] | None:
        if self.aliases is None or not array.size:
            return None
        start, end = np.lib.array_utils.byte_bounds(array)
        found = self.aliases.find(start, end, of=array)
        if found is None:
            return None
        owner, offset = found
        offset += array.__array_interface__["data"][0] - start  # strides may go down
        return owner, offset, owner.nbytes, array.dtype, array.shape, array.strides, array.flags.writeable

    def _block(self, block: Any) -> Any:
        """Of a frame: a shallow copy of a captured one is a copy there, since pandas would not know that it shares."""
        if self.aliases is None or not self.aliases.shares_with_pandas(block):
            return NotImplemented
        return block.copy(deep=True).__reduce_ex__(5)

    def _mapped_array(self, array: np.memmap[Any, Any]) -> Any:
        if array.dtype.hasobject:
            return NotImplemented
        file = None if array.filename is None else str(array.filename)
        parts = array_parts(array, self._memory)
        return rebuild_memmap, (self._memory, *parts, file, array.offset, array.mode)

    def _tensor(self, tensor: Any) -> Any:
        if not self._torch.is_plain(tensor):
            return NotImplemented
        rebuild, parts = view_as_tensor, self._shared_by_tensor(tensor)
        if parts is None:
            rebuild = self._torch.rebuild_tensor
            parts = (self._memory, *self._tensor_memory.parts(tensor))
        grad = self._torch.own_gradient(tensor)
        if not tensor.__dict__ and grad is None:
            return rebuild, parts
        state = (tensor.__dict__, grad)
        return rebuild, parts, state, None, None, self._torch.set_attributes

    def _shared_by_tensor(self, tensor: Any) -> tuple[Any, ...] | None:
        if self.aliases is None or tensor.device.type != "cpu" or not tensor.numel():
            return None
        found = self.aliases.find(*self._torch.byte_bounds(tensor), of=tensor)
        if found is None or found[1] % tensor.element_size() or found[0].itemsize % tensor.element_size():
            return None
        owner, offset = found
        requires_grad = tensor.requires_grad and tensor.is_leaf
        return (
            owner,
            offset,
            owner.nbytes,
            *self._torch.shape_of(tensor),
            requires_grad,
            self._torch.is_parameter(tensor),
        )

    def _device(self, device: Any) -> Any:
        return rebuild_device, (self._memory, str(device))

    def _storage(self, storage: Any) -> Any:
        return self._torch.rebuild_storage, (self._memory, *self._tensor_memory.storage_parts(storage))

    def _typed_storage(self, storage: Any) -> Any:
        return self._torch.rebuild_typed_storage, self._torch.typed_storage_parts(storage)

    def _function(self, function: FunctionType) -> Any:
        if cloudpickle_internals._should_pickle_by_reference(function):
            self.found_imports.add(function.__module__)
            return NotImplemented
        names = code_names(function.__code__)
        self.found_imports |= names.imports
        self.found_words |= names.words
        self.found_files.add(function.__code__.co_filename)
        self.found_definitions[function.__qualname__] = function
        if functions.is_single_dispatch(function):
            return functions.reduce_single_dispatch(function)
        if function.__globals__ is not self._namespace:
            return self._dynamic_function_reduce(function)
        for name in names.reads:
            self.found_names.setdefault(name, function.__qualname__)
        self.guessed_names |= names.mentions
        self.guessed_names |= functions.names_in_annotations(function)
        self.found_dynamic |= names.dynamic
        self._find_by_name(function)
        arguments = (self._sender, function.__code__, function.__name__, function.__closure__)
        state = functions.function_state(function)
        return functions.make_function, arguments, state, None, None, functions.fill_function

    def _cell(self, cell: CellType) -> Any:
        state = functions.cell_state(cell)
        if state is None:
            return functions.make_cell, ()
        return functions.make_cell, (), state, None, None, functions.fill_cell

    def _method(self, method: MethodType) -> Any:
        """The kernel has put methods of its own in the place of what asks at a keyboard."""
        asks = _KEYBOARD.get(method.__name__)
        if asks is None or not type(method.__self__).__module__.startswith("ipykernel."):
            return NotImplemented
        return our_object, asks

    def _class(self, cls: type) -> Any:
        self.found_imports.add(cls.__module__)
        if cls.__module__ == "__main__":
            self.found_definitions[cls.__qualname__] = cls
            self.guessed_names |= functions.names_in_annotations(cls)
            self._find_by_name(cls)
        return functions.reduce_class(cls, self._sender)

    def _find_by_name(self, value: type | FunctionType) -> None:
        """The cell's own pickles, ``torch.save`` of a model or a pool of processes, name what they refer to."""
        if self._namespace.get(value.__name__) is value:
            self.guessed_names.add(value.__name__)

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
