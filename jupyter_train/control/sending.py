"""Captured data on its way to the workers: once for each folder that lacks it.

Workers of one host usually share a folder, those of one network drive too:
each folder has an id, and of the workers that name the same one a single one
gets the bytes. They go straight to it where the kernel can reach it, else
through the scheduler, which everybody can reach.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_train.errors import RunError

if TYPE_CHECKING:
    from distributed import Client

DIRECT_CHUNK_BYTES = 16 * 2**20
RELAYED_CHUNK_BYTES = 4 * 2**20  #: the scheduler holds it while it passes it on
REACHED_S = 3.0  #: a worker that a kernel cannot reach may not even refuse
CHUNK_S = 120.0

#: Calls an agent through the scheduler: worker, name, arguments.
Relay = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """One folder that lacks something."""

    worker: str  #: any of those that use the folder
    keys: tuple[str, ...]


def lacking(answers: Mapping[str, Mapping[str, Any]], *, folder: str = "") -> list[Lack]:
    """Who has to be sent what.

    Args:
        answers: of each worker, the id of its folder and the keys it lacks there.
        folder: id of the kernel's own folder: what lies there needs not be sent.
    """
    first: dict[str, Lack] = {}
    for worker, answer in answers.items():
        place = str(answer["folder"])
        if place != folder and answer["missing"]:
            first.setdefault(place, Lack(worker=worker, keys=tuple(answer["missing"])))
    return list(first.values())


async def send_all(
    client: Client,
    lacks: Sequence[Lack],
    files: Mapping[str, Path],
    *,
    relay: Relay,
    count: Callable[[int], None],
) -> None:
    """Send to all folders at once. In the client's event loop; ``count`` is called with bytes that arrived.

    Raises:
        RunError: a file became shorter while it was sent.
        OSError: nothing answers, neither the worker nor the scheduler.
        Exception: what the agent raised.
    """
    await asyncio.gather(*(_send_to(client, lack, files, relay, count) for lack in lacks))


async def _send_to(
    client: Client, lack: Lack, files: Mapping[str, Path], relay: Relay, count: Callable[[int], None]
) -> None:
    is_reached = await _reaches(client, lack.worker)
    for key in lack.keys:
        done = 0
        while True:
            total, done, data = _chunk(
                files[key], done, DIRECT_CHUNK_BYTES if is_reached else RELAYED_CHUNK_BYTES
            )
            arguments = {"key": key, "offset": done, "total": total}
            if is_reached:
                try:
                    await _put(client, lack.worker, data, arguments)
                except (OSError, TimeoutError):
                    is_reached = False  # it has gone, or the way to it: the scheduler may know
                    continue
            else:
                await relay(lack.worker, "train_content_put", data=bytes(data), **arguments)
            done += len(data)
            count(len(data))
            if done >= total:
                break


async def _reaches(client: Client, worker: str) -> bool:
    try:
        await asyncio.wait_for(client.rpc(worker).train_content_missing(keys=[]), REACHED_S)
    except (OSError, TimeoutError):
        return False
    return True


async def _put(client: Client, worker: str, data: memoryview, arguments: Mapping[str, Any]) -> None:
    from distributed.protocol import to_serialize

    call = client.rpc(worker).train_content_put(data=to_serialize(data), **arguments)
    await asyncio.wait_for(call, CHUNK_S)


def _chunk(path: Path, offset: int, length: int) -> tuple[int, int, memoryview]:
    """Length of the file, ``offset``, and the bytes from there: mapped, not read."""
    with path.open("rb") as file:
        total = file.seek(0, 2)
        if offset > total or (total and offset == total):
            raise RunError(f"{path} became shorter while it was sent")
        if not total:
            return 0, 0, memoryview(b"")
        mapped = mmap.mmap(file.fileno(), total, access=mmap.ACCESS_READ)
        return total, offset, memoryview(mapped)[offset : offset + length]
