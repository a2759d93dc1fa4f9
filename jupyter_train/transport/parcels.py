"""Which bytes of a capture go into which file. Pure: nothing is written here.

Files are named by their hash, so what did not change since the last run is not
written or sent again. That decides the cuts: a large array is a file of its
own, the small arrays of one name (a list of sixty thousand images) are one,
and so is a long text; what is small and changes often lies together.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from jupyter_train.transport.mappings import FilePart
from jupyter_train.transport.memory import ALIGNMENT, Bytes, Elsewhere, Layout
from jupyter_train.transport.stream import Buffer, OutStream

#: What takes at least this much is a file of its own.
OWN_FILE_BYTES = 256 << 10


class Part(Protocol):
    """What one dump added; see ``pickling.Dumped``."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def first_view(self) -> int: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Parcel:
    """One file of a capture, before it is written."""

    key: str  #: hash of its bytes
    size_bytes: int
    buffers: tuple[Buffer, ...] = field(repr=False)
    parts: frozenset[int]  #: the dumps whose bytes are in it
    mixed: bool  #: what is small, of any of them, lies together in it


@dataclass(frozen=True, kw_only=True, eq=False)
class Filing:
    """Files, and where to find everything in them."""

    parcels: tuple[Parcel, ...]
    pieces: npt.NDArray[np.int64]  #: of the stream, in order: file, offset, length in bytes
    placement: npt.NDArray[
        np.int64
    ]  #: of each region: file, and offset in bytes; −1 − n is file n of ``elsewhere``
    elsewhere: tuple[FilePart, ...]  #: files of the disk, of which nothing travels


def file_away(
    stream: OutStream,
    parts: Sequence[Part],
    layout: Layout,
    regions: Sequence[Bytes],
    *,
    elsewhere: Elsewhere | None = None,
) -> Filing:
    """Cut a pickle and its memory into files.

    Args:
        stream: the pickle.
        parts: its dumps, in order.
        layout: of its memory.
        regions: the memory itself; it is read here, and again when the files are written.
        elsewhere: which of it is a file's that the ranks see too.
    """
    parcels: list[Parcel] = []
    pieces = _file_stream(stream, parts, parcels)
    found: dict[int, FilePart] = {}
    for index, region in enumerate(regions if elsewhere is not None else ()):
        part = elsewhere(region.ctypes.data, region.nbytes) if elsewhere is not None else None
        if part is not None:
            found[index] = part
    placement = _file_regions(parts, layout, regions, parcels, found.keys())
    for number, (index, part) in enumerate(found.items()):
        placement[index] = -1 - number, part.offset
    return Filing(parcels=tuple(parcels), pieces=pieces, placement=placement, elsewhere=tuple(found.values()))


def _file_stream(stream: OutStream, parts: Sequence[Part], parcels: list[Parcel]) -> npt.NDArray[np.int64]:
    cuts = {0, stream.tell()}
    for start, end in stream.large():
        cuts |= {start, end}
    for part in parts:
        if part.end - part.start >= OWN_FILE_BYTES:
            cuts |= {part.start, part.end}
    edges = sorted(cuts)
    rows: list[tuple[int, int, int]] = []
    together: list[memoryview] = []
    length = 0
    alone: list[tuple[int, int]] = []
    for start, end in itertools.pairwise(edges):
        if end - start >= OWN_FILE_BYTES:
            alone.append((start, end))
            rows.append((len(alone), 0, end - start))
        else:
            together += stream.slices(start, end)
            rows.append((0, length, end - start))
            length += end - start
    small = frozenset(n for n, part in enumerate(parts) if part.end - part.start < OWN_FILE_BYTES)
    parcels.append(_parcel(together, small, mixed=True))
    for start, end in alone:
        owners = frozenset(n for n, part in enumerate(parts) if part.start < end and start < part.end)
        parcels.append(_parcel(stream.slices(start, end), owners))
    return np.array(rows, np.int64).reshape(-1, 3)


def _file_regions(
    parts: Sequence[Part],
    layout: Layout,
    regions: Sequence[Bytes],
    parcels: list[Parcel],
    elsewhere: Collection[int],
) -> npt.NDArray[np.int64]:
    placement = np.zeros((len(regions), 2), np.int64)
    owners = owners_of(parts, layout)
    small: dict[int, list[int]] = defaultdict(list)
    for index, region in enumerate(regions):
        if index in elsewhere:
            continue
        if region.nbytes >= OWN_FILE_BYTES:
            placement[index] = len(parcels), 0
            parcels.append(_parcel([region.data], owners[index]))
        else:
            small[min(owners[index])].append(index)
    common: list[int] = []
    for members in small.values():
        if sum(regions[index].nbytes for index in members) >= OWN_FILE_BYTES:
            _pack(members, regions, owners, placement, parcels, mixed=False)
        else:
            common += members
    if common:
        _pack(common, regions, owners, placement, parcels, mixed=True)
    return placement


def owners_of(parts: Sequence[Part], layout: Layout) -> list[frozenset[int]]:
    """Of each region, the dumps with a view into it."""
    firsts = [part.first_view for part in parts]
    by_view = np.searchsorted(firsts, np.arange(len(layout.region_of)), side="right") - 1
    owners: list[set[int]] = [set() for _ in layout.lengths]
    for region, part in zip(layout.region_of.tolist(), by_view.tolist(), strict=True):
        owners[region].add(part)
    return [frozenset(each) for each in owners]


def _pack(
    members: Sequence[int],
    regions: Sequence[Bytes],
    owners: Sequence[frozenset[int]],
    placement: npt.NDArray[np.int64],
    parcels: list[Parcel],
    *,
    mixed: bool,
) -> None:
    """Put small regions one after the other into one file."""
    buffers: list[Buffer] = []
    length = 0
    for index in members:
        padding = -length % ALIGNMENT
        placement[index] = len(parcels), length + padding
        buffers += [bytes(padding), regions[index].data]
        length += padding + regions[index].nbytes
    parts: frozenset[int] = frozenset().union(*(owners[index] for index in members))
    parcels.append(_parcel([b"".join(buffers)], parts, mixed=mixed))


def _parcel(buffers: Sequence[Buffer], parts: frozenset[int], *, mixed: bool = False) -> Parcel:
    digest = xxhash.xxh3_128()
    for buffer in buffers:
        digest.update(buffer)
    size = sum(memoryview(buffer).nbytes for buffer in buffers)
    key = digest.hexdigest()
    return Parcel(key=key, size_bytes=size, buffers=tuple(buffers), parts=parts, mixed=mixed)
