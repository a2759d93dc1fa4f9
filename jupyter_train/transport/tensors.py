"""torch tensors: the stream holds shape and strides, the elements travel as memory.

torch itself writes every storage into the stream. Plain strided tensors and
Parameters get a reducer of their own here, which is also several times faster
each way; others (sparse, quantized, subclasses) keep torch's, over our storages.

Imported only where torch is imported already: the kernel of a notebook without
torch must not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from jupyter_train.transport.memory import Bytes, Outgoing, Regions

#: What :func:`rebuild_tensor` takes after the regions.
TensorParts = tuple[int, str, tuple[int, ...], tuple[int, ...] | None, bool, bool, bool]

_DTYPE_NAMES = {dtype: name for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}

#: Named tensors are gone from newer versions of torch.
_has_names: Callable[[torch.Tensor], bool] = getattr(torch.Tensor, "has_names", lambda _: False)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether shape, strides and elements are all there is to it."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type != "meta"
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not _has_names(tensor)
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


class TensorMemory:
    """Registers the memory of tensors for one pickle."""

    def __init__(self, memory: Outgoing, *, detach: bool) -> None:
        self._memory = memory
        self._detach = detach  #: results of a graph come back without it
        self._on_host: dict[int, torch.Tensor] = {}  #: by address on the accelerator

    def parts(self, tensor: torch.Tensor) -> TensorParts:
        """Register the elements of a plain tensor and return what rebuilds it."""
        requires_grad = tensor.requires_grad and (tensor.is_leaf or not self._detach)
        is_parameter = type(tensor) is torch.nn.Parameter
        size = tuple(tensor.shape)
        dtype = _DTYPE_NAMES[tensor.dtype]
        on_accelerator = tensor.device.type != "cpu"
        if not tensor.numel():
            return -1, dtype, size, None, requires_grad, is_parameter, on_accelerator
        width = tensor.element_size()
        start = tensor.data_ptr()
        if on_accelerator:
            start = self._host_address(tensor.untyped_storage()) + int(tensor.storage_offset()) * width
        stride: tuple[int, ...] | None = None
        if tensor.is_contiguous():
            span = tensor.numel() * width
        else:
            stride = tensor.stride()
            span = _span(size, stride, width)

        def compact() -> Bytes:
            copy = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
            content: Bytes = copy.numpy()
            return content

        number = self._memory.add(
            start,
            start + span,
            tensor,
            used_bytes=tensor.numel() * width,
            compact=None if stride is None else compact,
        )
        return number, dtype, size, stride, requires_grad, is_parameter, on_accelerator

    def storage_parts(self, storage: torch.UntypedStorage) -> tuple[int, int, bool]:
        """Register a whole storage, for tensors that are not plain."""
        length = storage.nbytes()
        on_accelerator = storage.device.type != "cpu"
        if not length:
            return -1, 0, on_accelerator
        start = self._host_address(storage) if on_accelerator else storage.data_ptr()
        return self._memory.add(start, start + length, storage), length, on_accelerator

    def _host_address(self, storage: torch.UntypedStorage) -> int:
        """Where a copy of an accelerator's storage lies in this process; one copy per storage."""
        found = self._on_host.get(storage.data_ptr())
        if found is None:
            found = torch.empty(storage.nbytes(), dtype=torch.uint8)
            found.untyped_storage().copy_(storage, False)
            self._on_host[storage.data_ptr()] = found
        return found.data_ptr()


def rebuild_tensor(  # pickle passes arguments by position
    regions: Regions,
    number: int,
    dtype_name: str,
    size: tuple[int, ...],
    stride: tuple[int, ...] | None,
    requires_grad: bool,
    is_parameter: bool,
    on_accelerator: bool,
) -> torch.Tensor:
    """The tensor over the regions of this process."""
    dtype: torch.dtype = getattr(torch, dtype_name)
    if number < 0:
        device = regions.device if on_accelerator else None
        tensor = torch.empty(size, dtype=dtype, device=device)
    else:
        storage, offset = regions.storage(number, on_accelerator=on_accelerator)
        if stride is None or regions.is_compacted(number):
            stride = _contiguous(size)
        index, rest = divmod(offset, dtype.itemsize)
        if rest:  # bytes and floats over one memory, at odd addresses: no torch tensor can be made there
            storage, index = storage[offset : offset + _span(size, stride, dtype.itemsize)].clone(), 0
        tensor = torch.empty(0, dtype=dtype, device=storage.device).set_(storage, index, size, stride)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_() if requires_grad else tensor


def rebuild_storage(regions: Regions, number: int, length: int, on_accelerator: bool) -> torch.UntypedStorage:
    """The storage over the regions of this process."""
    if number < 0:
        return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
    storage, offset = regions.storage(number, on_accelerator=on_accelerator)
    whole = not offset and storage.nbytes() == length
    found = storage if whole else storage[offset : offset + length]
    assert isinstance(found, torch.UntypedStorage)
    return found


def rebuild_typed_storage(storage: torch.UntypedStorage, dtype_name: str) -> torch.storage.TypedStorage:
    """The storage with a type, as torch's own reducers use it."""
    return torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
        wrap_storage=storage, dtype=getattr(torch, dtype_name), _internal=True
    )


def typed_storage_parts(storage: torch.storage.TypedStorage) -> tuple[torch.UntypedStorage, str]:
    """What :func:`rebuild_typed_storage` takes."""
    return storage._untyped_storage, _DTYPE_NAMES[storage.dtype]


def byte_bounds(tensor: torch.Tensor) -> tuple[int, int]:
    """First address of the elements of a plain tensor, and one past the last."""
    start = tensor.data_ptr()
    return start, start + _span(tuple(tensor.shape), tensor.stride(), tensor.element_size())


def shape_of(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Name of the type, shape and strides."""
    return _DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), tensor.stride()


def is_parameter(tensor: torch.Tensor) -> bool:
    """Whether it is a plain Parameter."""
    return type(tensor) is torch.nn.Parameter


def own_gradient(tensor: torch.Tensor) -> torch.Tensor | None:
    """``.grad`` where it travels: not that of a Parameter, which is as large as the model and soon overwritten."""
    if type(tensor) is not torch.Tensor or not tensor.requires_grad or not tensor.is_leaf:
        return None
    return tensor.grad


def set_attributes(tensor: torch.Tensor, state: tuple[dict[str, Any], torch.Tensor | None]) -> None:
    """Give a rebuilt tensor the attributes that Python code had set on it, and its gradient."""
    attributes, grad = state
    tensor.__dict__.update(attributes)
    if grad is not None:
        tensor.grad = grad


def _contiguous(size: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for length in reversed(size):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def _span(size: tuple[int, ...], stride: tuple[int, ...], width: int) -> int:
    """Bytes from the first element to the end of the last."""
    return (sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1) * width
