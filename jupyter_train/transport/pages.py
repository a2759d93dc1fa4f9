"""Which pages of a private mapping were written to, as the kernel of the system knows it.

A private mapping of a file shares its pages with everybody until one is
written; then the process gets a copy. The page table tells the two apart, so
that 200 MB that nobody wrote to need not be read to know so.
"""

from __future__ import annotations

import mmap
import os
import sys
from functools import cache

import numpy as np

_PAGEMAP = "/proc/self/pagemap"
_IN_USE = np.uint64(3 << 62)  #: present, or swapped out
_OF_A_FILE = np.uint64(1 << 61)


def is_written(address: int, length: int) -> bool:
    """Whether a page of the private file mapping at ``address`` may have been written to.

    True where that cannot be known: then the bytes have to be compared.
    """
    if not length:
        return False
    return not _can_tell() or _has_own_page(address, length)


def _has_own_page(address: int, length: int) -> bool:
    first = address // mmap.PAGESIZE
    count = (address + length - 1) // mmap.PAGESIZE - first + 1
    try:
        with open(_PAGEMAP, "rb", buffering=0) as pagemap:
            pagemap.seek(8 * first)
            entries = np.frombuffer(pagemap.read(8 * count), np.uint64)
    except OSError:
        return True
    if len(entries) < count:
        return True
    return bool(np.any((entries & _IN_USE != 0) & (entries & _OF_A_FILE == 0)))


@cache
def _can_tell() -> bool:
    """Whether the page table of this process tells a written page from one that was only read."""
    if not sys.platform.startswith("linux"):
        return False
    size = mmap.PAGESIZE
    try:
        descriptor = os.memfd_create("jupyter-train-pages", os.MFD_CLOEXEC)
    except (OSError, AttributeError):
        return False
    try:
        os.truncate(descriptor, 2 * size)
        with mmap.mmap(descriptor, 2 * size, access=mmap.ACCESS_COPY) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            address = int(view.ctypes.data)
            read = int(view[0])
            view[size] = 1
            told = not _has_own_page(address, size) and _has_own_page(address + size, size)
            del view
        return told and read == 0
    except OSError:
        return False
    finally:
        os.close(descriptor)
