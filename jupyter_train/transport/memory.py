"""The memory of arrays and tensors travels beside the pickle stream, each byte once.

While objects are pickled, an array or tensor only registers the interval of
addresses that it touches and gets a number; the stream holds the number. When
all is pickled, intervals that overlap become one *region* (so a view stays a
view of what it is a view of, whether numpy or torch owns the memory), and only
what some view touches travels: five elements of a gigabyte are five elements.

On the other side :class:`Regions` hands out views of the same regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jupyter_train.transport.mappings import FilePart
from jupyter_train.transport.pages import is_written

Bytes = npt.NDArray[np.uint8]

#: The file that memory at an address, so many bytes of it, is a part of; see ``mappings.FileMappings``.
Elsewhere = Callable[[int, int], FilePart | None]

#: Views of memory are placed on multiples of this, for vector instructions.
ALIGNMENT = 64

#: A view that touches less than a fourth of its interval is copied where nothing shares it.
_SPARSE_FACTOR = 4
_SPARSE_BYTES = 1 << 20

_COMPARED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the views of one pickle lie: region and offset of each, by its number."""

    lengths: npt.NDArray[np.int64]  #: bytes of each region
    region_of: npt.NDArray[np.int64]
    offset_of: npt.NDArray[np.int64]  #: bytes from the start of the region
    compacted: frozenset[int]  #: views whose bytes were copied into C order


NOTHING = Layout(
    lengths=np.zeros(0, np.int64),
    region_of=np.zeros(0, np.int64),
    offset_of=np.zeros(0, np.int64),
    compacted=frozenset(),
)


class _Raw:
    """Memory by address; numpy makes an array of it without a copy."""

    def __init__(self, address: int, length: int) -> None:
        self.__array_interface__ = {
            "data": (address, False),
            "shape": (length,),
            "typestr": "|u1",
            "version": 3,
        }


def bytes_at(address: int, length: int) -> Bytes:
    """The memory itself. The caller keeps its owner alive."""
    return np.asarray(_Raw(address, length))


class Outgoing:
    """Collects the memory of one pickle. One thread, in the process whose memory it is."""

    def __init__(self, *, elsewhere: Elsewhere | None = None) -> None:
        self._elsewhere = elsewhere  #: which memory is a file's that the other side has too
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._owners: list[Any] = []
        self._compact: dict[int, tuple[int, Callable[[], Bytes]]] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def add(
        self,
        start: int,
        end: int,
        owner: Any,
        *,
        used_bytes: int | None = None,
        compact: Callable[[], Bytes] | None = None,
    ) -> int:
        """Register the addresses ``start`` to ``end`` and return the number of the view.

        Args:
            start: first address.
            end: one past the last.
            owner: kept alive until the bytes are read.
            used_bytes: what the view has in elements, where it leaves gaps.
            compact: makes a copy of the elements in C order, for a view with large gaps.
        """
        number = len(self._starts)
        self._starts.append(start)
        self._ends.append(end)
        self._owners.append(owner)
        if compact is not None and used_bytes is not None:
            span = end - start
            if span > _SPARSE_BYTES and span > _SPARSE_FACTOR * used_bytes:
                self._compact[number] = used_bytes, compact
        return number

    def forget(self, count: int) -> None:
        """Drop the views from number ``count`` on: what they belonged to does not travel."""
        del self._starts[count:], self._ends[count:], self._owners[count:]
        for number in [n for n in self._compact if n >= count]:
            del self._compact[number]

    def touched_bytes(self, first: int, last: int) -> int:
        """About what of the views ``first`` to ``last`` (exclusive) has to travel, shared memory counted once."""
        total = 0
        for start, end, members in _merge(self._starts[first:last], self._ends[first:last]):
            if self._elsewhere is not None and self._elsewhere(start, end - start) is not None:
                continue
            sparse = self._compact.get(first + members[0]) if len(members) == 1 else None
            total += end - start if sparse is None else sparse[0]
        return total

    def regions(self) -> tuple[Layout, list[Bytes]]:
        """Join what overlaps.

        Returns:
            The layout, and the bytes of each region: the memory itself, not a
            copy, so it is to be written before anything else runs.
        """
        count = len(self._starts)
        region_of = np.full(count, -1, np.int64)
        offset_of = np.zeros(count, np.int64)
        compacted: set[int] = set()
        contents: list[Bytes] = []
        # In the order of first use: addresses are others each time, and files are named by what is in them.
        for start, end, members in sorted(_merge(self._starts, self._ends), key=lambda one: min(one[2])):
            is_elsewhere = self._elsewhere is not None and self._elsewhere(start, end - start) is not None
            if len(members) == 1 and members[0] in self._compact and not is_elsewhere:
                contents.append(self._compact[members[0]][1]())
                compacted.add(members[0])
            else:
                contents.append(bytes_at(start, end - start))
            for number in members:
                region_of[number] = len(contents) - 1
                offset_of[number] = self._starts[number] - start
        layout = Layout(
            lengths=np.array([content.nbytes for content in contents], np.int64),
            region_of=region_of,
            offset_of=offset_of,
            compacted=frozenset(compacted),
        )
        return layout, contents

    def release(self) -> None:
        """Let go of the owners; the bytes have been written."""
        self._owners.clear()
        self._compact.clear()


def _merge(starts: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int, list[int]]]:
    """Join intervals that share bytes: ``(start, end, members)``. Neighbours that only touch stay apart."""
    merged: list[tuple[int, int, list[int]]] = []
    for number in sorted(range(len(starts)), key=starts.__getitem__):
        start, end = starts[number], ends[number]
        if merged and start < merged[-1][1]:
            first, last, members = merged[-1]
            members.append(number)
            merged[-1] = (first, max(last, end), members)
        else:
            merged.append((start, end, [number]))
    return merged


class Regions:
    """The regions of one pickle in the process that loads it.

    Args:
        layout: as :meth:`Outgoing.regions` made it.
        region: bytes of a region, by its number; writable. Called once for each.
        original: the same bytes as they were loaded, whatever was written since.
            Needed for :meth:`changed` only.
        device: where tensors go that lay on an accelerator; None leaves them on the CPU.
    """

    def __init__(
        self,
        layout: Layout,
        region: Callable[[int], Any],
        *,
        original: Callable[[int], Any] | None = None,
        device: str | None = None,
    ) -> None:
        self.layout = layout
        self.device = device
        self.moved: dict[str, str] = {}  #: devices of the notebook that are others here
        self._fetch = region
        self._original = original
        self._regions: dict[int, Bytes] = {}
        self._storages: dict[tuple[int, str | None], Any] = {}
        self.off_host: set[int] = set()  #: regions that the other side keeps on an accelerator
        self._region_of: list[int] = layout.region_of.tolist()
        self._offset_of: list[int] = layout.offset_of.tolist()

    def view(self, number: int) -> tuple[Bytes, int]:
        """The region of view ``number`` and the view's offset in it."""
        return self.region(self._region_of[number]), self._offset_of[number]

    def region(self, index: int) -> Bytes:
        """Region ``index`` as bytes."""
        found = self._regions.get(index)
        if found is None:
            found = self._regions[index] = np.frombuffer(self._fetch(index), np.uint8)
        return found

    def storage(self, number: int, *, on_accelerator: bool = False) -> tuple[Any, int]:
        """The torch storage of view ``number``'s region, and the view's offset in bytes.

        One storage per region and device, so that what shared memory shares it again.
        """
        index = self._region_of[number]
        if on_accelerator:
            self.off_host.add(index)
        device = self.device if on_accelerator else None
        found = self._storages.get((index, device))
        if found is None:
            import torch

            tensor = torch.from_numpy(self.region(index))
            found = (tensor if device is None else tensor.to(device)).untyped_storage()
            self._storages[index, device] = found
        return found, self._offset_of[number]

    def is_compacted(self, number: int) -> bool:
        """Whether the elements of view ``number`` lie in C order, whatever its strides were."""
        return number in self.layout.compacted

    def odd(self) -> set[int]:
        """Regions whose bytes do not lie here as they do on the other side's host."""
        return self.off_host | {self._region_of[number] for number in self.layout.compacted}

    def changed(self) -> set[int]:
        """Regions whose bytes are no longer those that were loaded. Reads only what was written to."""
        original = self._original
        assert original is not None, "what comes back has nothing to compare with"
        return {
            index
            for index, content in self._regions.items()
            if is_written(content.ctypes.data, content.nbytes)
            and not _same_bytes(content, np.frombuffer(original(index), np.uint8))
        }

    def spans(self) -> list[tuple[int, int, int]]:
        """``(address, end, region)`` of every region loaded so far, by address."""
        return sorted(
            (content.ctypes.data, content.ctypes.data + content.nbytes, index)
            for index, content in self._regions.items()
        )


def _same_bytes(one: Bytes, other: Bytes) -> bool:
    """Piece by piece: a comparison makes an array of its own, as long as what it compares."""
    return all(
        np.array_equal(one[start : start + _COMPARED_BYTES], other[start : start + _COMPARED_BYTES])
        for start in range(0, one.nbytes, _COMPARED_BYTES)
    )
