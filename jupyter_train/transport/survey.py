"""What a cell would send, without sending or writing anything: ``%train capture``."""

from __future__ import annotations

import pickletools
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

from jupyter_train.record import ContentRef
from jupyter_train.transport.capture import Pickled
from jupyter_train.transport.collection import no_collection
from jupyter_train.transport.limit import described
from jupyter_train.transport.localmodules import local_closure
from jupyter_train.transport.mappings import FileMappings
from jupyter_train.transport.names import CellNames, cell_names
from jupyter_train.transport.parcels import Parcel, file_away, owners_of
from jupyter_train.transport.pickling import RESERVED, Namespace

#: Longer pickles are not looked through for what they share.
_LOOKED_THROUGH_BYTES = 4 << 20

#: What everybody shares and nobody means.
_COMMON = (str, bytes, int, float, tuple, type, ModuleType, FunctionType, BuiltinFunctionType, np.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One name that would travel."""

    name: str
    kind: str  #: type, shape and element type, for people
    size_bytes: int  #: what it shares counts for the first name that has it
    alone: tuple[ContentRef, ...]  #: files that hold nothing else
    together: tuple[str, ...]  #: keys of files that hold other names too
    shares: tuple[str, ...]  #: names above it with the same objects or memory

    def new_bytes(self, there: Collection[str]) -> int:
        """How much of it is in none of the files whose keys are ``there``."""
        in_others = self.size_bytes - sum(ref.size_bytes for ref in self.alone)
        new = sum(ref.size_bytes for ref in self.alone if ref.key not in there)
        if any(key not in there for key in self.together):
            new += max(in_others, 0)
        return new


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All that a cell would send."""

    items: tuple[Item, ...]  #: largest first
    modules: tuple[str, ...]  #: names of modules: imported there
    sources: dict[str, int]  #: local modules that travel as files: their bytes by name
    mapped: tuple[str, ...]  #: files of the disk that the ranks map themselves
    files: tuple[ContentRef, ...]
    refused: dict[str, str]  #: why a name cannot travel, by name


def survey(
    source: str, namespace: Namespace, *, names: Iterable[str] = (), shared_disk: bool = False
) -> Survey:
    """Pickle what ``source`` reads of ``namespace``, and ``names``, into nothing. Kernel's main thread.

    ``shared_disk`` as for ``capture``.

    Raises:
        SyntaxError: ``source`` is no Python.
    """
    cell: CellNames = cell_names(source)
    refused: dict[str, str] = {}
    with no_collection():
        elsewhere = FileMappings().part_at if shared_disk else None
        pickled = Pickled(namespace, cell, names, {}, None, refused=refused, elsewhere=elsewhere)
        local = local_closure(cell.imports | pickled.writer.found_imports)
        layout, regions = pickled.writer.memory.regions()
        filing = file_away(pickled.writer.out, pickled.parts, layout, regions, elsewhere=elsewhere)
        order, parts = pickled.names, pickled.parts
        owners = owners_of(parts, layout)
        sizes = [part.end - part.start for part in parts]
        for length, together, file in zip(
            layout.lengths.tolist(), owners, filing.placement[:, 0].tolist(), strict=True
        ):
            if file >= 0:
                sizes[min(together)] += length
        shares = _shared_memory(owners, len(parts))
        streams = [b"".join(pickled.writer.out.slices(part.start, part.end)) for part in parts]
        firsts = pickled.writer.numbers(parts)
        _add_shared_objects(shares, streams, firsts, [None] * RESERVED + pickled.finish())
        del regions
    items = [
        _item(
            name,
            namespace[name],
            sizes[number],
            number,
            filing.parcels,
            [order[n] for n in sorted(shares[number])],
        )
        for number, name in enumerate(order)
        if not isinstance(namespace[name], ModuleType)
    ]
    return Survey(
        items=tuple(sorted(items, key=lambda item: -item.size_bytes)),
        modules=tuple(name for name in order if isinstance(namespace[name], ModuleType)),
        sources={module.name: len(module.source) for module in local.modules},
        mapped=tuple(dict.fromkeys(part.path for part in filing.elsewhere)),
        files=tuple(ContentRef(key=parcel.key, size_bytes=parcel.size_bytes) for parcel in filing.parcels),
        refused=refused,
    )


def _item(
    name: str, value: Any, size: int, number: int, parcels: Sequence[Parcel], shares: list[str]
) -> Item:
    mine = [parcel for parcel in parcels if number in parcel.parts]
    return Item(
        name=name,
        kind=described(value),
        size_bytes=size,
        alone=tuple(
            ContentRef(key=parcel.key, size_bytes=parcel.size_bytes)
            for parcel in mine
            if not parcel.mixed and min(parcel.parts) == number
        ),
        together=tuple(parcel.key for parcel in mine if parcel.mixed),
        shares=tuple(shares),
    )


def _shared_memory(owners: Iterable[frozenset[int]], count: int) -> list[set[int]]:
    """Of each dump, those before it that see the same memory."""
    shares: list[set[int]] = [set() for _ in range(count)]
    for together in owners:
        for number in together:
            shares[number].update(other for other in together if other < number)
    return shares


def _add_shared_objects(
    shares: list[set[int]], streams: Sequence[bytes], firsts: Sequence[int], objects: Sequence[Any]
) -> None:
    """Add to ``shares`` the dumps whose objects a later one refers to."""
    for number, stream in enumerate(streams):
        if len(stream) > _LOOKED_THROUGH_BYTES:
            continue
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name not in ("BINGET", "LONG_BINGET") or not isinstance(argument, int):
                continue
            if RESERVED <= argument < firsts[number] and not isinstance(objects[argument], _COMMON):
                owner = bisect_right(firsts, argument) - 1
                if 0 <= owner < number:
                    shares[number].add(owner)
