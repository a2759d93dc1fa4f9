"""numpy arrays: the stream holds shape and strides, the elements travel as memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from jupyter_train.transport.memory import Bytes, Outgoing, Regions

#: What :func:`rebuild_array` takes after the regions.
ArrayParts = tuple[int, np.dtype[Any], tuple[int, ...], tuple[int, ...] | None, bool]


def array_parts(array: np.ndarray[Any, Any], memory: Outgoing) -> ArrayParts:
    """Register the elements of ``array`` (no objects among them) and return what rebuilds it."""
    writeable = array.flags.writeable
    if not array.size:
        return -1, array.dtype, array.shape, None, writeable
    start = end = array.__array_interface__["data"][0]
    strides: tuple[int, ...] | None = None
    if array.flags.c_contiguous:
        end += array.nbytes
    else:
        strides = array.strides
        for length, stride in zip(array.shape, strides, strict=True):
            if stride < 0:
                start += (length - 1) * stride
            else:
                end += (length - 1) * stride
        end += array.itemsize

    def compact() -> Bytes:
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    number = memory.add(
        start, end, array, used_bytes=array.nbytes, compact=None if strides is None else compact
    )
    return number, array.dtype, array.shape, strides, writeable


def rebuild_array(  # pickle passes arguments by position
    regions: Regions,
    number: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    writeable: bool,
) -> np.ndarray[Any, Any]:
    """The array over the regions of this process."""
    if number < 0:
        array: np.ndarray[Any, Any] = np.empty(shape, dtype)
    else:
        region, offset = regions.view(number)
        if strides is None or regions.is_compacted(number):
            array = np.ndarray(shape, dtype, region, offset)
        else:
            # The offset is that of the lowest address; the first element lies higher where strides go down.
            offset -= sum(
                (length - 1) * stride for length, stride in zip(shape, strides, strict=True) if stride < 0
            )
            array = np.ndarray(shape, dtype, region, offset, strides)
    if not writeable:
        array.flags.writeable = False
    return array


def rebuild_memmap(  # pickle passes arguments by position
    regions: Regions,
    number: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    writeable: bool,
    filename: str | None,
    offset: int,
    mode: str,
) -> np.memmap[Any, Any]:
    """As :func:`rebuild_array`; what is written to it stays in this process, as with mode ``c``."""
    plain = rebuild_array(regions, number, dtype, shape, strides, writeable)
    mapped: Any = plain.view(np.memmap)
    mapped.filename, mapped.offset, mapped.mode = filename, offset, mode
    found: np.memmap[Any, Any] = mapped
    return found
