"""State of which every rank has a part (`DTensor`, as ``fully_shard`` makes them), by `torch.distributed.checkpoint`.

All ranks write into one folder, beside the files of the checkpoint: it has to be on a disk
that all hosts share. The ranks that write agree through a gloo group of their own, so that
nothing of theirs comes between the collectives of the cell. Whoever reads may be any number
of ranks, or one process, and executes nothing of what is in the folder.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_train.errors import CheckpointUnreadable
from jupyter_train.home import private_folder
from jupyter_train.runtime.checkpoint.freezing import KIND, Copies
from jupyter_train.runtime.checkpoint.writer import sync_folder
from jupyter_train.runtime.parallel.patches import Patches

SHARDED = "sharded"  #: kind of what stands in a file for a tensor in the folder
FOLDER = "folder"  #: its key with the folder's path, once the file has been read
GIVEN_UP = -1
LAST_S = 60.0  #: that a cell waits for its last checkpoint before its process groups are taken down


def is_sharded(value: Any) -> bool:
    """A tensor of which this rank has a part."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def has_process_group() -> bool:
    """The cell has set up process groups, so that ranks may hold parts of its state."""
    module = sys.modules.get("torch.distributed")
    return module is not None and bool(module.is_available() and module.is_initialized())


class Shards:
    """The sharded tensors of one snapshot."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._parts: dict[str, tuple[Any, Any]] = {}
        self.markers: list[dict[str, Any]] = []  #: what stands for them in the file

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, tensor: Any, at: str) -> dict[str, Any]:
        """Take this rank's part of ``tensor``; what stands for all of it."""
        tensor = tensor.detach()
        self._parts[at] = (self._copies.add(tensor.to_local()), tensor._spec)
        marker = {KIND: SHARDED, "key": at, "shape": tuple(tensor.shape), "dtype": tensor.dtype}
        self.markers.append(marker)
        return marker

    def tensors(self) -> dict[str, Any]:
        """By key, over the copies: what `torch.distributed.checkpoint` takes."""
        from torch.distributed.tensor import DTensor

        make: Any = DTensor
        return {key: make(copy, spec, requires_grad=False) for key, (copy, spec) in self._parts.items()}


class Nothing:
    """Copies nothing: on ranks that keep only their parts of what is sharded."""

    def add(self, tensor: Any) -> Any:
        """An empty tensor."""
        import torch

        del tensor
        return torch.empty(0)


class CircleBroken(Exception):
    """A rank that takes part in writing is gone, or the cell has taken its process groups down."""


class Circle:
    """The threads of all ranks that write together. Made by the main thread, at the same place on every rank.

    A cell that destroys its process groups waits until the last checkpoint is on the disk:
    the group goes with the others.

    Args:
        idle: nothing is being written, or waits for it.
    """

    def __init__(self, *, idle: Callable[[], bool]) -> None:
        import torch.distributed as dist

        self._idle = idle
        self._group: Any = dist.new_group(backend="gloo")
        self._patches = Patches()
        destroy = dist.destroy_process_group

        @functools.wraps(destroy)
        def destroyed(*args: Any, **kwargs: Any) -> Any:
            self._wait()
            return destroy(*args, **kwargs)

        self._patches.replace(dist, "destroy_process_group", destroyed)

    def close(self) -> None:
        """Leave torch as it was. Twice does nothing."""
        self._patches.undo()

    def exchange(self, number: int) -> list[int]:
        """The numbers that the ranks say, by rank. Every rank has to call it.

        Raises:
            CircleBroken: not all of them can.
        """
        import torch
        import torch.distributed as dist

        try:
            numbers = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size(self._group))]
            dist.all_gather(numbers, torch.tensor([number]), group=self._group)
        except (RuntimeError, ValueError) as error:
            raise CircleBroken from error
        return [int(one) for one in numbers]

    def write(self, folder: Path, tensors: Mapping[str, Any]) -> int:
        """Write the parts of all ranks into ``folder``, which is there once it is whole; its size on rank 0, else 0.

        Raises:
            OSError: a rank could not write its part: all of them raise, and nothing is left.
            CircleBroken: a rank is gone.
        """
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            return write_shards(folder, tensors, self._group)
        except CheckpointException as error:
            for failure, _ in error.failures.values():
                if isinstance(failure, OSError):
                    raise failure from error
            raise
        except (RuntimeError, ValueError) as error:
            raise CircleBroken from error

    def _wait(self) -> None:
        end = time.monotonic() + LAST_S
        while not self._idle() and time.monotonic() < end:
            time.sleep(0.005)  # in short steps and without a lock: a stop raises its exception here


def agree(said: Callable[[int], list[int]], number: int, newer: Callable[[int], int]) -> int:
    """The checkpoint that all ranks write now: the newest that one of them has come to.

    Args:
        said: tells the others a number, and gives what all have told.
        number: of the one that this rank would write.
        newer: waits until this rank has one of at least that number, drops the older one and gives the
            number of the newer, or :data:`GIVEN_UP` where none will come.

    Returns:
        The number, or :data:`GIVEN_UP` where a rank cannot take part any more.
    """
    while True:
        told = said(number)
        if min(told) == GIVEN_UP:
            return GIVEN_UP
        if min(told) == max(told):
            return number
        if number < max(told):
            number = newer(max(told))


def write_shards(folder: Path, tensors: Mapping[str, Any], group: Any) -> int:
    """Write the parts of all ranks into ``folder``, which is there once it is whole; its size on rank 0, else 0.

    Raises:
        OSError, Exception: a rank could not write its part: all of them raise, and nothing is left.
    """
    import torch.distributed as dist
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    part = folder.with_name(folder.name + ".part")
    rank = dist.get_rank(group)
    if rank == 0:
        shutil.rmtree(part, ignore_errors=True)
        private_folder(part.parent)
    dist.barrier(group)
    try:
        writer = FileSystemWriter(part, sync_files=True)
        save(dict(tensors), storage_writer=writer, process_group=group)
        size = 0
        if rank == 0:
            size = sum(one.stat().st_size for one in part.iterdir())
            part.chmod(0o700)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
            sync_folder(folder.parent)
    except BaseException:
        if rank == 0:
            shutil.rmtree(part, ignore_errors=True)
        raise
    dist.barrier(group)
    return size


def fill(markers: Sequence[tuple[Mapping[str, Any], Any]]) -> None:
    """Load what each marker stands for into the tensor beside it: a whole one, or this rank's part of one.

    Raises:
        CheckpointUnreadable: the folder is missing or damaged.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    by_folder: dict[str, dict[str, Any]] = {}
    for marker, tensor in markers:
        by_folder.setdefault(str(marker[FOLDER]), {})[marker["key"]] = tensor.detach()
    for folder, tensors in by_folder.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # that nothing is asked of other ranks, which is meant
                load(tensors, storage_reader=_reader(Path(folder)), no_dist=True)
        except (OSError, EOFError, KeyError, pickle.UnpicklingError, CheckpointException) as error:
            raise CheckpointUnreadable(
                f"the sharded state in {folder} cannot be read: {type(error).__name__}: {error}. It is a folder that "
                "all ranks write into: a JUPYTER_TRAIN_HOME that all hosts share makes it visible everywhere"
            ) from error


def _reader(folder: Path) -> Any:
    """Reads the folder; its index is a pickle, of which nothing but the index's own classes is loaded."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            del args, kwargs
            metadata = _Index(io.BytesIO((folder / ".metadata").read_bytes())).load()
            if getattr(metadata, "storage_meta", None) is None:
                from torch.distributed.checkpoint.metadata import StorageMeta

                metadata.storage_meta = StorageMeta()
            metadata.storage_meta.load_id = self.load_id
            return metadata

    return Reader(folder)


class _Index(pickle.Unpickler):
    """Loads the classes of the index, and types and sizes."""

    def find_class(self, module: str, name: str) -> Any:
        found: Any
        if module in ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"):
            found = super().find_class(module, name)
            if isinstance(found, type):
                return found
        elif (module, name) in (
            ("torch", "Size"),
            ("torch.serialization", "_get_layout"),
            ("torch._utils", "_get_layout"),
            ("collections", "OrderedDict"),
            ("pathlib", "PosixPath"),
        ):
            return super().find_class(module, name)
        elif module == "torch":
            import torch

            found = getattr(torch, name, None)
            if isinstance(found, (torch.dtype, torch.layout, torch.memory_format)):
                return found
        raise pickle.UnpicklingError(f"the index names {module}.{name}, which is none of its own classes")
