"""The file of one result: a header, and two pickles with their memory.

    8 bytes   magic
    8 bytes   length of the header
    header    JSON: names, remarks, where the sections lie (from the end of the header)
    section   index (pickle), stream, regions; once for what comes back by itself,
              once for the names that are too large for that

What comes back by itself lies first, so that a kernel on another host fetches
``Header.prefix_bytes`` and no more. Written beside its place and renamed.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import pickletools
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jupyter_train.home import private_folder
from jupyter_train.transport.memory import ALIGNMENT, Bytes, Layout, Regions
from jupyter_train.transport.pickling import RESERVED, Dumped, Namespace, Reader, Receiver, Writer

MAGIC = b"JTRESLT1"
_LENGTH = struct.Struct("<Q")

#: ``(kind, key)`` of each dump: ``edit`` of an object by its number, ``bytes`` where only its memory is
#: written over, ``name``, ``random`` states, ``error``.
Item = tuple[str, int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a result holds, readable without unpickling anything."""

    names: tuple[str, ...]  #: assigned by the cell
    large: tuple[str, ...]  #: assigned, or changed, and too large to come back by themselves
    changed: tuple[str, ...]  #: captured, and changed in place
    deleted: tuple[str, ...]
    remarks: tuple[str, ...]
    objects: int  #: how many the capture had
    sections: tuple[tuple[int, int], ...] = ()  #: offset and length, from the end of the header


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    item: Item
    start: int  #: in the stream
    number: int  #: of its first object
    buffer: int  #: of its first buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    entries: tuple[_Entry, ...]
    layout: Layout
    stream: tuple[int, int]  #: offset from the start of the section, and length
    offsets: npt.NDArray[np.int64]  #: of each region
    buffers: tuple[tuple[int, int], ...]


class Section:
    """One pickle being written."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._dumps: list[tuple[Item, Dumped]] = []

    @property
    def items(self) -> list[Item]:
        """What has been added."""
        return [item for item, _ in self._dumps]

    def add(self, item: Item, value: Any, *, limit_bytes: int | None = None) -> int | None:
        """Pickle ``value``.

        Returns:
            Its size in bytes, or None where that is over ``limit_bytes``: it was taken back.

        Raises:
            Exception: whatever its pickling raises.
        """
        dumped = self.writer.dump(value)
        size = dumped.end - dumped.start
        size += self.writer.memory.touched_bytes(dumped.first_view, dumped.last_view)
        if limit_bytes is not None and size > limit_bytes:
            self.writer.undo(dumped)
            return None
        self._dumps.append((item, dumped))
        return size

    def parts(self) -> list[memoryview]:
        """The bytes of the section, in order; the memory itself."""
        layout, regions = self.writer.memory.regions()
        stream = self.writer.stream()
        offsets = np.zeros(len(regions), np.int64)
        end = stream.nbytes
        padded: list[memoryview] = [stream]
        for number, region in enumerate(regions):
            padding = -end % ALIGNMENT
            offsets[number] = end + padding
            padded += [memoryview(bytes(padding)), region.data]
            end = end + padding + region.nbytes
        index = pickle.dumps(
            _Index(
                entries=self._entries(),
                layout=layout,
                stream=(0, stream.nbytes),
                offsets=offsets,
                buffers=tuple(self.writer.buffers),
            ),
            5,
        )
        before = _LENGTH.size + len(index)
        first = _LENGTH.pack(len(index)) + index + bytes(-before % ALIGNMENT)
        return [memoryview(first), *padded]

    def _entries(self) -> tuple[_Entry, ...]:
        numbers = self.writer.numbers([dumped for _, dumped in self._dumps])
        views = [view for view, _ in self.writer.buffers]
        return tuple(
            _Entry(item=item, start=dumped.start, number=number, buffer=bisect_left(views, dumped.first_view))
            for (item, dumped), number in zip(self._dumps, numbers, strict=True)
        )


def write_result(path: Path, header: Header, sections: Sequence[Section]) -> int:
    """Write the file and return its size in bytes.

    Raises:
        OSError: no room, or the folder cannot be written.
    """
    parts = [section.parts() for section in sections]
    places: list[tuple[int, int]] = []
    end = 0
    for section in parts:
        length = sum(part.nbytes for part in section)
        padding = -length % ALIGNMENT
        section.append(memoryview(bytes(padding)))
        places.append((end, length + padding))
        end += length + padding
    fields = {**asdict(header), "sections": places}
    text = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
    text += b" " * (-(len(MAGIC) + _LENGTH.size + len(text)) % ALIGNMENT)
    private_folder(path.parent)
    part = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(MAGIC + _LENGTH.pack(len(text)) + text)
            for section in parts:
                for buffer in section:
                    file.write(buffer)
            size = file.tell()
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return size


class ResultFile:
    """A result that is read: mapped, so that only what is used is copied. Close it when done."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < len(MAGIC) + _LENGTH.size:
                raise ValueError(f"{path} is not a result of a run")
            self._mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
        if self._mapped[: len(MAGIC)] != MAGIC:
            self._mapped.close()
            raise ValueError(f"{path} is not a result of a run of this version")
        begin = len(MAGIC) + _LENGTH.size
        length: int = _LENGTH.unpack(self._mapped[len(MAGIC) : begin])[0]
        self._data = begin + length
        fields = json.loads(self._mapped[begin : self._data].decode("utf-8", "surrogatepass"))
        self.header = _header(fields)

    @property
    def prefix_bytes(self) -> int:
        """How much of the file holds what comes back by itself."""
        offset, length = self.header.sections[0]
        return self._data + offset + length

    def has(self, section: int) -> bool:
        """Whether the section is there: a file may have been fetched without the large names."""
        if section >= len(self.header.sections):
            return False
        offset, length = self.header.sections[section]
        return self._data + offset + length <= len(self._mapped)

    def load(
        self, section: int, namespace: Namespace, given: Sequence[Any] | None
    ) -> Iterator[tuple[Item, Any, str | None]]:
        """Every item of a section, one after the other as it is rebuilt: ``(item, value, None)``, or ``(item, None, why)`` where it cannot be rebuilt."""
        offset, _ = self.header.sections[section]
        begin = self._data + offset
        length: int
        (length,) = _LENGTH.unpack(self._mapped[begin : begin + _LENGTH.size])
        index = pickle.loads(self._mapped[begin + _LENGTH.size : begin + _LENGTH.size + length])
        assert isinstance(index, _Index)
        begin += _LENGTH.size + length
        begin += -(_LENGTH.size + length) % ALIGNMENT

        item: Item = ("", 0)

        def begins(next_item: Item) -> None:
            nonlocal item
            item = next_item

        def region(number: int) -> Bytes:
            start = begin + int(index.offsets[number])
            length = int(index.layout.lengths[number])
            there = np.frombuffer(self._mapped, np.uint8, length, start)
            # What is only copied into the notebook's own memory is copied once; what stays is not
            # left on a file of the run's folder.
            return there if item[0] == "bytes" else there.copy()

        # Without the captured objects, what refers to one of them cannot be rebuilt.
        lost = [range(RESERVED, RESERVED + self.header.objects)] if given is None else []
        given = [None] * self.header.objects if given is None else given
        receiver = Receiver(namespace, Regions(index.layout, region))
        start = begin + index.stream[0]
        stream = self._mapped[start : start + index.stream[1]]
        return _load_items(index, stream, receiver, given, lost, begins)

    def close(self) -> None:
        """Let go of the file; what still looks at its bytes keeps them."""
        with suppress(BufferError):
            self._mapped.close()

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _header(fields: dict[str, Any]) -> Header:
    sections = tuple((offset, length) for offset, length in fields.pop("sections"))
    objects = fields.pop("objects")
    return Header(
        objects=objects, sections=sections, **{name: tuple(value) for name, value in fields.items()}
    )


def _load_items(
    index: _Index,
    stream: bytes,
    receiver: Receiver,
    given: Sequence[Any],
    lost: list[range],  # numbers of objects that could not be rebuilt
    begins: Callable[[Item], None],
) -> Iterator[tuple[Item, Any, str | None]]:
    reader: Reader | None = None
    objects = list(given)
    for at, entry in enumerate(index.entries):
        begins(entry.item)
        end = index.entries[at + 1].start if at + 1 < len(index.entries) else len(stream)
        if lost and _refers_to(stream[entry.start : end], lost):
            why: str | None = "it holds something that could not be rebuilt"
        else:
            if reader is None:
                # Numbering goes on where the lost item would have ended.
                objects += [None] * (entry.number - RESERVED - len(objects))
                reader = Reader(
                    stream[entry.start :], receiver, given=objects, buffers=index.buffers[entry.buffer :]
                )
            try:
                value = reader.load()
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
            else:
                yield entry.item, value, None
                continue
        yield entry.item, None, why
        if at + 1 < len(index.entries):
            lost.append(range(entry.number, index.entries[at + 1].number))
        if reader is not None:
            objects = reader.objects()[RESERVED : entry.number]
            reader = None


def _refers_to(pickled: bytes, lost: Sequence[range]) -> bool:
    """Whether a dump refers to an object by one of the ``lost`` numbers."""
    return any(
        any(argument in numbers for numbers in lost)
        for opcode, argument, _ in pickletools.genops(pickled)
        if opcode.name in ("BINGET", "LONG_BINGET")
    )
