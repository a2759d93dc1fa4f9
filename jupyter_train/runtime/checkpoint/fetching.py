"""Brings the files of a checkpoint to a host that lacks them, before its ranks begin from there. In the agent's event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_train.home import private_folder, run_folder
from jupyter_train.record.checkpoint import ResumePoint, resume_point

logger = logging.getLogger(__name__)

CHUNK_BYTES = 4 << 20
FETCH_S = 60.0  #: for all files; a launch may take longer than that


async def fetch_missing(
    resume: Mapping[str, Any] | None, ranks: Sequence[int], *, root: Path, agent: Callable[[str], Any]
) -> None:
    """Copy what ``ranks`` need of the checkpoint from the workers that wrote it, where it is not on this disk.

    What cannot be had stays missing: the rank says so, and the controller takes another checkpoint.

    Args:
        resume: the checkpoint, as in a spec.
        ranks: that begin here.
        root: folder of `jupyter_train.home`.
        agent: the RPC to a worker's agent, by its address.
    """
    point = resume_point(resume)
    if point is None:
        return
    folder = run_folder(point.run_id, root)
    numbers = sorted({0, *(rank for rank in ranks if rank < len(point.files))})
    lacking = [rank for rank in numbers if rank < len(point.workers) and not _is_there(folder, point, rank)]
    try:
        await asyncio.wait_for(_fetch_all(folder, point, lacking, agent), FETCH_S)
    except Exception as error:  # the worker is gone, the disk full, …
        logger.warning("checkpoint %s of run %s is not here: %r", point.number, point.run_id, error)


def _is_there(folder: Path, point: ResumePoint, rank: int) -> bool:
    return (folder / point.files[rank]).exists()


async def _fetch_all(
    folder: Path, point: ResumePoint, ranks: Sequence[int], agent: Callable[[str], Any]
) -> None:
    for rank in ranks:
        await _fetch(folder, point, rank, agent(point.workers[rank]))


async def _fetch(folder: Path, point: ResumePoint, rank: int, remote: Any) -> None:
    loop = asyncio.get_running_loop()
    path = private_folder(folder) / point.files[rank]
    # Other workers of this host may fetch the same file now: who is first is as good as who is last.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        done, total = 0, 1
        with part.open("wb") as file:
            part.chmod(0o600)
            while done < total:
                reply = await remote.train_artifact_get(
                    run_id=point.run_id, name=path.name, offset=done, length=CHUNK_BYTES
                )
                total = int(reply["total"])
                if not reply["data"]:
                    raise OSError(f"{path.name} became shorter while it was fetched")
                done += await loop.run_in_executor(None, file.write, reply["data"])
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
