"""Copies of tensors in memory that is used again and again.

The first touch of fresh memory costs five times as much as the copy into it, so the
pieces of memory are handed back and reused. What is on a GPU comes into pinned memory, behind what its stream has to do, and nobody waits for
it here: :meth:`Copied.wait` does, in the thread that writes.
"""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass, field
from typing import Any

from jupyter_train.runtime.checkpoint.directfile import BLOCK_BYTES, LARGE_BYTES

ALIGNMENT = 64  #: bytes: of each copy, so that a tensor of any type may lie there
PIECE_BYTES = 2 << 20  #: memory comes in multiples of it, so that a little more state fits, too


class StagingPool:
    """Memory for copies. Any thread may take some and give it back.

    Args:
        idle: how many pieces are kept for the next copies.
    """

    def __init__(self, idle: int = 3) -> None:
        self._idle = idle
        self._free: list[_Memory] = []
        self._lock = threading.Lock()

    def take(self, size: int, *, pinned: bool) -> _Memory:
        """At least ``size`` bytes: what was given back before, if there is something that fits."""
        with self._lock:
            fitting = [one for one in self._free if one.size >= size and one.pinned == pinned]
            if fitting:
                best = min(fitting, key=lambda one: one.size)
                self._free.remove(best)
                return best
        return _new_memory(-(-size // PIECE_BYTES) * PIECE_BYTES, pinned=pinned)

    def give_back(self, memory: _Memory) -> None:
        """Nobody looks at it any more."""
        with self._lock:
            self._free.append(memory)
            if len(self._free) > self._idle:
                self._free.remove(min(self._free, key=lambda one: one.size))


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    size: int
    pinned: bool
    buffer: Any  #: what `torch.frombuffer` takes


def _new_memory(size: int, *, pinned: bool) -> _Memory:
    if pinned:
        import torch

        return _Memory(size, True, torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy())
    # Not in large pages: to find them takes the kernel 10 to 180 ms for 133 MB, small ones 35 ms.
    return _Memory(size, False, mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


@dataclass(slots=True)
class _Range:
    """The bytes of one storage that are copied."""

    storage: Any
    start: int
    end: int
    views: list[tuple[Any, Any]] = field(default_factory=list)  #: source and the tensor that will be its copy


class Copied:
    """The memory in which the copies of one snapshot lie, until it is released."""

    def __init__(
        self, pool: StagingPool, memory: list[_Memory], events: list[Any], size: int, pieces: int
    ) -> None:
        self._pool = pool
        self._memory = memory
        self._events = events
        self.size_bytes = size
        self.in_large = pieces * BLOCK_BYTES < size // 50  #: to begin each at a block costs less than 2 %

    def wait(self) -> None:
        """Until the devices have made the copies."""
        for event in self._events:
            event.synchronize()

    def release(self) -> None:
        """The tensors that were given are not read any more. Twice does nothing."""
        self.wait()
        memory, self._memory = self._memory, []
        for one in memory:
            self._pool.give_back(one)


class Staging:
    """The tensors of one snapshot: all are added, then copied at once.

    Tensors that share memory share it in the copy. Of memory of which only a part
    is seen through the tensors, that part is copied.
    """

    def __init__(self, pool: StagingPool) -> None:
        self._pool = pool
        self._ranges: dict[tuple[str, int, int], _Range] = {}

    def add(self, tensor: Any) -> Any:
        """The tensor that will hold the copy of ``tensor``, once :meth:`copy` has been called."""
        import torch

        tensor = tensor.detach()
        copy = torch.empty(0, dtype=tensor.dtype)
        storage = tensor.untyped_storage()
        start, end = _extent(tensor)
        key = str(tensor.device), storage.data_ptr(), storage.nbytes()
        if (known := self._ranges.get(key)) is None:
            known = self._ranges[key] = _Range(storage, start, end)
        elif start < end:
            is_empty = known.start == known.end
            known.start = start if is_empty else min(known.start, start)
            known.end = max(known.end, end)
        known.views.append((tensor, copy))
        return copy

    def copy(self) -> Copied:
        """Copy all: those on the CPU now, those on a GPU as soon as it has done what comes before."""
        memory: list[_Memory] = []
        events: list[Any] = []
        total = 0
        kinds: dict[str, list[_Range]] = {}
        for (device, _, _), one in self._ranges.items():
            one.start -= one.start % ALIGNMENT
            kinds.setdefault(device, []).append(one)
        for device, ranges in kinds.items():
            size = sum(_aligned(one.end - one.start) for one in ranges)
            total += size
            pinned = device.startswith("cuda")
            piece = self._pool.take(size, pinned=pinned)
            memory.append(piece)
            offset = 0
            # The large ones first: each lies at a block of its own, so that it can be written as it is.
            for one in sorted(ranges, key=lambda one: one.start - one.end):
                _copy_range(one, piece, offset, pinned=pinned)
                offset += _aligned(one.end - one.start)
            if pinned:
                import torch

                with torch.cuda.device(device):
                    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                    event.record()
                    events.append(event)
        return Copied(self._pool, memory, events, total, len(self._ranges))


def _copy_range(one: _Range, piece: _Memory, offset: int, *, pinned: bool) -> None:
    import torch

    size = one.end - one.start
    if size:
        target = torch.frombuffer(piece.buffer, dtype=torch.uint8, count=size, offset=offset)
        source = torch.empty(0, dtype=torch.uint8, device=one.storage.device)
        source.set_(one.storage, one.start, (size,), (1,))
        target.copy_(source, non_blocking=pinned)
        storage = target.untyped_storage()
    else:
        storage = torch.empty(0, dtype=torch.uint8).untyped_storage()
    for source, copy in one.views:
        shifted = source.storage_offset() - one.start // source.element_size()
        copy.set_(storage, max(shifted, 0) if size else 0, source.size(), source.stride())


def _extent(tensor: Any) -> tuple[int, int]:
    """First byte of its storage that ``tensor`` shows, and the one behind the last."""
    if not tensor.numel():
        return 0, 0
    first = tensor.storage_offset()
    last = first + sum((n - 1) * stride for n, stride in zip(tensor.size(), tensor.stride(), strict=True))
    return first * tensor.element_size(), (last + 1) * tensor.element_size()


def _aligned(size: int) -> int:
    step = BLOCK_BYTES if size >= LARGE_BYTES else ALIGNMENT
    return -(-size // step) * step
