"""Keeps the captured data of a worker's host within bounds, and fresh what runs there need.

A kernel elsewhere cannot look after this folder. What was used within the last
hour is never evicted, by anybody: so the agent marks what its running ranks
need as used, now and then, for a retry begins from the same data.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

from jupyter_train.errors import TrainError
from jupyter_train.home import content_folder, home
from jupyter_train.runtime.proof.keeper import SCRATCH
from jupyter_train.runtime.proof.recording import recording_file
from jupyter_train.runtime.sharedmemory import PREFIX, SHARED_MEMORY
from jupyter_train.runtime.spool import spool_name
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.quota import content_quota

logger = logging.getLogger(__name__)

PERIOD_S = 900.0  #: well below the hour for which what was used stays
#: Files beside ranks go with them. Of those that a killed worker left, this is the age at which nobody writes to them
#: any more, not even a rank that has had nothing to say for days.
ABANDONED_S = 7 * 24 * 3600.0
#: Shared memory has a name for milliseconds, while the ranks of a run map it.
NAMED_S = 3600.0


class Tidying:
    """One worker's care for the folder; any number of workers may share it. Event loop of the worker.

    Args:
        needed: keys that runs on this worker need now.
        period_s: between two looks.
    """

    def __init__(self, needed: Callable[[], Collection[str]], *, period_s: float = PERIOD_S) -> None:
        self._needed = needed
        self._period_s = period_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look now and then, until :meth:`close`."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            keys = list(self._needed())
            try:
                await asyncio.get_running_loop().run_in_executor(None, tidy, keys)
                await asyncio.get_running_loop().run_in_executor(None, sweep)
            except (OSError, TrainError) as error:  # a full or unreadable disk: what needs it will say so
                logger.warning("captured data could not be looked after: %s", error)


def tidy(needed: Collection[str]) -> int:
    """Mark ``needed`` as used and evict what is too much; bytes removed."""
    folder = content_folder()
    if not folder.is_dir():
        return 0
    content = ContentStore(folder)
    content.missing(needed)
    return content.prune(content_quota(folder), needed=needed)


def sweep(now: float | None = None) -> list[Path]:
    """Remove what processes left that were killed: files beside ranks, names of shared memory; what was removed."""
    now = time.time() if now is None else now
    old = [(path, ABANDONED_S) for path in (home() / "runs").glob(f"*/{spool_name('*', '*')}")]
    old += [(path, ABANDONED_S) for path in (home() / "runs").glob(f"*/{recording_file(Path(), '*')}")]
    old += [(path, NAMED_S) for path in SHARED_MEMORY.glob(f"{PREFIX}*")]
    old += [(path, NAMED_S) for path in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*")]
    removed = []
    for path, age_s in old:
        with contextlib.suppress(OSError):  # another worker was quicker
            found = path.lstat()
            if found.st_uid == os.getuid() and now - found.st_mtime > age_s:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                removed.append(path)
    return removed
