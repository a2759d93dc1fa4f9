"""Memory that is a file's: where ranks see the same disk, the name of the file travels in the place of its bytes.

Whatever mapped it (``np.memmap``, ``torch.load(mmap=True)``, Arrow tables): the
system says which file lies at an address. Only what this process cannot have
changed counts: read-only mappings, and private ones that nobody wrote to.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from jupyter_train.transport.pages import is_written

_MAPS = Path("/proc/self/maps")

#: Smaller regions travel as bytes: they cost nothing, and their file may go.
LEAST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """Bytes of a file, as long as it stays as it was."""

    path: str
    offset: int
    size_bytes: int  #: of the whole file
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mapping:
    start: int
    end: int
    is_shared: bool
    is_writable: bool
    offset: int
    inode: int
    path: str


class FileMappings:
    """The files mapped into this process when it was made. None are known where the system does not tell."""

    def __init__(self) -> None:
        try:
            text = os.fsdecode(_MAPS.read_bytes())
        except OSError:
            text = ""
        self._mappings = [mapping for line in text.splitlines() if (mapping := _parsed(line))]
        self._starts = [mapping.start for mapping in self._mappings]

    def part_at(self, address: int, length: int) -> FilePart | None:
        """The part of a file that lies at ``address``, None where it is not one or may have been changed here."""
        if length < LEAST_BYTES:
            return None
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address + length > self._mappings[at].end:
            return None
        mapping = self._mappings[at]
        if mapping.is_writable and (mapping.is_shared or is_written(address, length)):
            return None
        try:
            now = os.stat(mapping.path)
        except OSError:
            return None
        offset = mapping.offset + address - mapping.start
        if not stat.S_ISREG(now.st_mode) or now.st_ino != mapping.inode or offset + length > now.st_size:
            return None
        return FilePart(path=mapping.path, offset=offset, size_bytes=now.st_size, mtime_ns=now.st_mtime_ns)


def _parsed(line: str) -> _Mapping | None:
    """One line of ``/proc/self/maps``, None where no file of the disk is behind it."""
    fields = line.split(maxsplit=5)
    if len(fields) < 6 or not fields[5].startswith("/") or fields[5].endswith(" (deleted)"):
        return None
    start, end = (int(address, 16) for address in fields[0].split("-"))
    return _Mapping(
        start=start,
        end=end,
        is_shared=fields[1][3] == "s",
        is_writable=fields[1][1] == "w",
        offset=int(fields[2], 16),
        inode=int(fields[4]),
        path=fields[5],
    )
