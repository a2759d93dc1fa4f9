"""Captured bytes as files named by their hash: the same data is written and sent once.

One folder per host and user holds them (``<home>/content/<xx>/<key>``). The
kernel writes into it, agents receive into it, and every rank of the host maps
the same file privately, so that four ranks share one copy of a data set and
what a rank writes stays its own.

The hash is xxh3_128: quick (2 GB in under 0.1 s), not proof against an
adversary. Folders are therefore readable by their owner only.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import xxhash

from jupyter_train.errors import CaptureError
from jupyter_train.home import private_folder
from jupyter_train.record import ContentRef
from jupyter_train.transport.mappings import FilePart
from jupyter_train.transport.quota import Quota

KEY = re.compile(r"[0-9a-f]{32}")

Buffer = bytes | bytearray | memoryview

_ID_FILE = "id"

#: A part that nobody has added to for so long was left by a sender that died.
STALE_PART_S = 24 * 3600.0

#: What was used so recently is never evicted.
RECENT_S = 3600.0

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """One file in memory, twice; pages that nobody writes to are there once."""

    private: memoryview  #: writable; what is written stays in this process
    original: memoryview  #: read only


def map_part(part: FilePart, length: int) -> Mapped:
    """``length`` bytes of a file of the disk, as :meth:`ContentStore.mapped` gives those of captured data.

    Raises:
        CaptureError: the file is not there, or is not what it was when it was captured.
    """
    try:
        descriptor = os.open(part.path, os.O_RDONLY)
    except OSError as error:
        raise CaptureError(
            f"{part.path}, which the notebook has mapped, cannot be read here: {error}"
        ) from error
    try:
        now = os.fstat(descriptor)
        if (now.st_size, now.st_mtime_ns) != (part.size_bytes, part.mtime_ns):
            raise CaptureError(f"{part.path} was changed since the notebook mapped it; run the cell again")
        before = part.offset % mmap.ALLOCATIONGRANULARITY
        start, size = part.offset - before, length + before
        # Without a reserve: a file may be larger than the memory that is left.
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
        both = mmap.PROT_READ | mmap.PROT_WRITE
        private = mmap.mmap(descriptor, size, flags=flags, prot=both, offset=start)
        original = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ, offset=start)
        return Mapped(private=memoryview(private)[before:], original=memoryview(original)[before:])
    finally:
        os.close(descriptor)


class ContentStore:
    """Files of one folder by their hash. Any number of processes may use the folder at once."""

    def __init__(self, folder: Path, *, needed: Callable[[], Collection[str]] = tuple) -> None:
        self.folder = Path(folder)
        self._needed = needed  #: keys that may not go when the disk is full
        self.written_bytes = 0  #: by this object: what was not there already

    def path(self, key: str) -> Path:
        """Where the bytes of ``key`` lie, whether they are there or not.

        Raises:
            ValueError: ``key`` is no hash; nothing else may become a path.
        """
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not the key of captured data")
        return self.folder / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether all bytes of ``key`` are here."""
        return self.path(key).is_file()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of ``keys`` that are not here, in order; the others are marked as used."""
        return [key for key in keys if not self._touch(self.path(key))]

    def folder_id(self) -> str:
        """The id of this folder: who reads the same one here and elsewhere sees the same files.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.folder / _ID_FILE
        private_folder(self.folder)
        while True:
            try:
                found = path.read_text("ascii")
            except FileNotFoundError:
                part = path.with_name(f"{_ID_FILE}.{os.getpid()}-{threading.get_ident()}")
                part.write_text(secrets.token_hex(16), "ascii")
                try:
                    os.link(part, path)  # the first of several wins
                except FileExistsError:
                    pass
                except OSError:  # a drive without hard links
                    os.replace(part, path)
                finally:
                    part.unlink(missing_ok=True)
            else:
                return found

    def put(self, *buffers: Buffer, key: str | None = None) -> ContentRef:
        """Write ``buffers`` as one file, unless a file with these bytes is there already.

        Args:
            buffers: the bytes, one after the other.
            key: their hash, where the caller has it already.

        Raises:
            OSError: no room, or the folder cannot be written.
        """
        views = [view for view in (memoryview(b).cast("B") for b in buffers) if view.nbytes]
        if key is None:
            digest = xxhash.xxh3_128()
            for view in views:
                digest.update(view)
            key = digest.hexdigest()
        ref = ContentRef(key=key, size_bytes=sum(view.nbytes for view in views))
        path = self.path(ref.key)
        if self._touch(path, size_bytes=ref.size_bytes):
            return ref
        private_folder(path.parent)
        try:
            self._write(path, views)
        except OSError as error:
            if error.errno not in _FULL or not self.prune(Quota(max_bytes=0), needed=self._needed()):
                raise
            self._write(path, views)
        self.written_bytes += ref.size_bytes
        return ref

    def _write(self, path: Path, views: Iterable[memoryview]) -> None:
        part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                for view in views:
                    _write_all(file.fileno(), view)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def map(self, key: str) -> memoryview:
        """The bytes of ``key`` in memory: writable, private to this process, read from disk as they are touched.

        Raises:
            FileNotFoundError: they are not here.
        """
        return self.mapped(key).private

    def mapped(self, key: str) -> Mapped:
        """As :meth:`map`, with the bytes as they are in the file, whatever this process writes.

        Raises:
            FileNotFoundError: they are not here.
        """
        path = self.path(key)
        self._touch(path)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            if not size:
                return Mapped(private=memoryview(bytearray()), original=memoryview(b""))
            return Mapped(
                private=memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)),
                # Mapped now: by the time it is read, the file may have been evicted.
                original=memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)),
            )
        finally:
            os.close(descriptor)

    def receive(self, key: str, offset: int, total: int, data: Buffer) -> bool:
        """Add one chunk of ``key``; chunks come in order, a chunk twice does no harm.

        Returns:
            Whether all ``total`` bytes are here now. The last chunk checks the hash.

        Raises:
            ValueError: a chunk was left out, or the bytes do not have the hash ``key``.
            OSError: no room, or the folder cannot be written.
        """
        path = self.path(key)
        if self._touch(path, size_bytes=total):
            return True
        private_folder(path.parent)
        part = path.with_name(f"{key}.part")
        view = memoryview(data).cast("B")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            here = os.fstat(descriptor).st_size
            if not 0 <= offset <= here or offset + view.nbytes > total:
                raise ValueError(f"chunk at {offset} of {key}: expected one at {here} of {total} bytes")
            os.lseek(descriptor, offset, os.SEEK_SET)
            _write_all(descriptor, view)
            if os.fstat(descriptor).st_size < total:
                return False
            if not _has_hash(descriptor, key):
                part.unlink(missing_ok=True)
                raise ValueError(f"the bytes received for {key} do not have that hash; send them again")
        finally:
            os.close(descriptor)
        try:
            os.replace(part, path)
        except FileNotFoundError:
            # Two kernels sent the same data, and the other's last chunk came first.
            return self.has(key)
        return True

    def prune(
        self,
        quota: Quota,
        *,
        needed: Collection[str] = (),
        min_age_s: float = RECENT_S,
        now: float | None = None,
        free_bytes: Callable[[], int] | None = None,
    ) -> int:
        """Remove what is too old, then what was used least recently, until the folder is within ``quota``.

        What was used within ``min_age_s`` stays, as ``needed`` does: a run may
        be about to load it. Files that a rank has mapped may go, their pages live on.

        Args:
            quota: how much, how long, and what its disk has to keep free.
            needed: keys that stay.
            min_age_s: seconds.
            now: unix time.
            free_bytes: what the disk has free, where it is not asked itself.

        Returns:
            The number of bytes removed.
        """
        clock = time.time() if now is None else now
        files: list[tuple[float, int, Path]] = []
        removed = 0
        total = 0
        for path in self.folder.glob("??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if path.name.endswith(".part"):
                if clock - stat.st_mtime > STALE_PART_S:
                    path.unlink(missing_ok=True)
                    removed += stat.st_size
                continue
            total += stat.st_size
            if clock - stat.st_mtime >= min_age_s and path.name not in needed:
                files.append((stat.st_mtime, stat.st_size, path))
        free = (free_bytes or self._free_bytes)() if files else 0
        for used, size, path in sorted(files):
            is_old = clock - used > quota.max_age_s
            if not is_old and total <= quota.max_bytes and free >= quota.min_free_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            free += size
            removed += size
        return removed

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free

    def _touch(self, path: Path, *, size_bytes: int | None = None) -> bool:
        try:
            if size_bytes is not None and path.stat().st_size != size_bytes:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True


def _write_all(descriptor: int, view: memoryview) -> None:
    """Write all of ``view``. ``write`` fails where a full disk would kill a writer through a mapping."""
    while view.nbytes:
        written = os.write(descriptor, view[: 1 << 30])
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]


def _has_hash(descriptor: int, key: str) -> bool:
    size = os.fstat(descriptor).st_size
    if not size:
        return xxhash.xxh3_128_hexdigest(b"") == key
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as mapped:
        return xxhash.xxh3_128_hexdigest(mapped) == key
