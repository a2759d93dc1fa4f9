"""New views of captured memory come back as views of the notebook's own memory.

``X_train = X[:8000]``, ``torch.from_numpy(X)`` and ``model.state_dict()`` make
objects that share the memory of something captured. Written as what they are,
they cost no bytes however large the data is, and what shared memory on the rank
shares it in the notebook.

The base has to be contiguous on both sides and to lie in the memory that was
loaded. Memory of pandas is left out: pandas counts who shares it, and would not
know of a view made here.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Span = tuple[int, int, Any]


class Aliases:
    """Where the memory of captured arrays and tensors lies in this process.

    Args:
        objects: that the notebook has too; None where it has none.
        left_out: numbers of those whose memory will not be in the notebook what it is here.
        is_loaded: whether an address lies in memory that has the notebook's layout.
    """

    def __init__(self, objects: Sequence[Any], left_out: Collection[int], is_loaded: Any) -> None:
        spans: list[_Span] = []
        foreign: list[tuple[int, int]] = []
        torch = sys.modules.get("torch")
        for number, value in enumerate(objects):
            kind = type(value)
            if kind is np.ndarray:
                span = _of_array(value)
            elif torch is not None and kind in (torch.Tensor, torch.nn.Parameter):
                span = _of_tensor(value, torch)
            else:
                if kind.__module__.partition(".")[0] == "pandas":
                    foreign += _of_pandas(value)
                continue
            if span is not None and number not in left_out and is_loaded(span[0]):
                spans.append((*span, value))
        self._foreign = foreign
        spans = [span for span in spans if not self._overlaps(*span[:2])]
        self._spans = _maximal(spans)
        self._starts = [start for start, _, _ in self._spans]

    def shares_with_pandas(self, block: Any) -> bool:
        """Whether a block of a new frame lies in memory of a captured one."""
        return any(self._overlaps(start, end) for start, end in _of_pandas(block.values))

    def _overlaps(self, start: int, end: int) -> bool:
        return any(first < end and start < last for first, last in self._foreign)

    def find(self, start: int, end: int, *, of: Any) -> tuple[Any, int] | None:
        """The captured object whose memory holds ``start`` to ``end``, and the offset in bytes. Not ``of`` itself."""
        at = bisect_right(self._starts, start) - 1
        if at < 0:
            return None
        first, last, owner = self._spans[at]
        return (owner, start - first) if end <= last and owner is not of else None


def _maximal(spans: list[_Span]) -> list[_Span]:
    """Without those that lie within another; by address, and so by end too."""
    kept: list[_Span] = []
    for span in sorted(spans, key=lambda one: (one[0], -one[1])):
        if not kept or span[1] > kept[-1][1]:
            kept.append(span)
    return kept


def _of_array(array: np.ndarray[Any, Any]) -> tuple[int, int] | None:
    if array.dtype.hasobject or not array.size or not array.flags.c_contiguous or not array.flags.writeable:
        return None
    start: int = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def _of_tensor(tensor: Any, torch: Any) -> tuple[int, int] | None:
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or not tensor.numel():
        return None
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return None
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes


def _of_pandas(value: Any) -> list[tuple[int, int]]:
    """Memory of a frame, series, index or one of their columns."""
    manager = getattr(value, "_mgr", None)
    parts = list(manager.arrays) if manager is not None else [value]
    found: list[tuple[int, int]] = []
    for part in parts:
        inner = (getattr(part, name, None) for name in ("_data", "_ndarray", "_mask", "_codes"))
        for array in (part, *inner):
            if isinstance(array, np.ndarray) and array.size:
                start, end = np.lib.array_utils.byte_bounds(array)
                found.append((start, end))
    return found


# On the other side


def view_as_array(
    owner: Any,
    offset: int,
    nbytes: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,
) -> npt.NDArray[Any]:
    """A view of the memory of ``owner``, this process's array or tensor.

    Raises:
        ValueError: ``owner`` has another size or layout here by now.
    """
    base = owner
    if not isinstance(owner, np.ndarray):
        import torch

        _check(owner, owner.nbytes, nbytes, contiguous=owner.is_contiguous())
        base = owner.detach().reshape(-1).view(torch.uint8).numpy()
    else:
        _check(owner, owner.nbytes, nbytes, contiguous=owner.flags.c_contiguous)
    view: npt.NDArray[Any] = np.ndarray(shape, dtype, base, offset, strides)
    if not writeable:
        view.flags.writeable = False
    return view


def view_as_tensor(
    owner: Any,
    offset: int,
    nbytes: int,
    dtype_name: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    is_parameter: bool,
) -> Any:
    """As :func:`view_as_array`, a tensor.

    Raises:
        ValueError: ``owner`` has another size or layout here by now.
    """
    import torch

    dtype: torch.dtype = getattr(torch, dtype_name)
    if isinstance(owner, np.ndarray):
        _check(owner, owner.nbytes, nbytes, contiguous=owner.flags.c_contiguous)
        storage, first = torch.from_numpy(owner.reshape(-1).view(np.uint8)).untyped_storage(), 0
    else:
        _check(owner, owner.nbytes, nbytes, contiguous=owner.is_contiguous())
        storage, first = owner.untyped_storage(), int(owner.storage_offset()) * owner.element_size()
    index, rest = divmod(first + offset, dtype.itemsize)
    if rest:
        raise ValueError("a tensor would begin at an odd address here")
    tensor = torch.empty(0, dtype=dtype, device=storage.device).set_(storage, index, shape, strides)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_() if requires_grad else tensor


def _check(owner: Any, now: int, then: int, *, contiguous: bool) -> None:
    if now != then or not contiguous:
        raise ValueError(f"it shares the memory of a {type(owner).__name__} that is another one by now")
