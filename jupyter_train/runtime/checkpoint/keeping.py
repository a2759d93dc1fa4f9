"""Keeps the checkpoints of one rank: copies at once, writes in a thread of its own, drops old ones.

The training loop waits for the copy and never for the disk. While one checkpoint is
being written, the newest snapshot waits; on rank 0, whose file is the large one, it
takes the place of one that waits already, whose number then never becomes whole.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jupyter_train.record.checkpoint import CheckpointPart
from jupyter_train.runtime.checkpoint.copying import Copier, Copy
from jupyter_train.runtime.checkpoint.files import CheckpointFile
from jupyter_train.runtime.checkpoint.reader import read_metric
from jupyter_train.runtime.checkpoint.retention import KEEP_LAST, ranking
from jupyter_train.runtime.checkpoint.sharded import GIVEN_UP, Circle, CircleBroken, agree
from jupyter_train.runtime.checkpoint.shelf import Shelf
from jupyter_train.runtime.checkpoint.state import Snapshot
from jupyter_train.runtime.checkpoint.writer import write_file

MOST_WAITING = 64  #: small snapshots of ranks other than 0


class Keeping:
    """The checkpoints of one rank of one attempt. ``keep`` is called by the main thread, ``close`` by any.

    Args:
        folder: of the run.
        worker: Dask address of the worker, for whoever wants the files.
        tell: records the payload of a ``checkpoint`` event, in its place among the metrics.
        remark: says one sentence to the user.
        keep_last: how many stay where a snapshot does not say.
    """

    def __init__(
        self,
        *,
        folder: Path,
        attempt: int,
        rank: int,
        world_size: int,
        worker: str,
        tell: Callable[[Mapping[str, Any]], None],
        remark: Callable[[str], None],
        keep_last: int = KEEP_LAST,
    ) -> None:
        self._folder = folder
        self._attempt = attempt
        self._rank = rank
        self._worker = worker
        self._tell = tell
        self._remark = remark
        self._keep_last = keep_last
        self._copier = Copier(attempt=attempt, rank=rank, world_size=world_size)
        self._waiting: deque[Copy] = deque()
        self._circle: Circle | None = None  #: of the threads of all ranks, where state is sharded
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._writing = False
        self._in_trouble = False
        self._told: set[str] = set()
        self._shelf = Shelf(
            folder, attempt=attempt, rank=rank, world_size=world_size, read_metric=read_metric
        )

    @property
    def is_busy(self) -> bool:
        """A checkpoint is being written, or waits for that."""
        return self._writing or bool(self._waiting)

    def keep(self, snapshot: Snapshot) -> None:
        """Copy what the snapshot holds and return; the thread writes it.

        Raises:
            CannotKeep: the cell gave a value that no checkpoint can hold.
            ValueError: ``best`` of the snapshot names no metric.
        """
        if snapshot.best is not None:
            ranking(snapshot.best)
        try:
            copy = self._copier.copy(snapshot)
        except MemoryError:
            self._say_once("a checkpoint was left out: there is not enough memory for a copy of the state")
            return
        for label, why in copy.content["left_out"].items():
            self._say_once(f"checkpoints leave out {label}: {why}")
        if copy.shards and self._circle is None:
            self._circle = Circle(idle=lambda: not self.is_busy)
        self._tell({"number": snapshot.number, "begun": True})
        # Without a lock: a stop raises its exception anywhere in here.
        self._waiting.append(copy)
        most = 1 if self._rank == 0 or copy.shards else MOST_WAITING
        while len(self._waiting) > most:
            self._forget(self._waiting)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="jupyter-train-checkpoint", daemon=True)
            self._thread.start()
        self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Write what waits and end the thread; says so where that takes longer than ``timeout_s``. Twice does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing = True
        self._wake.set()
        thread.join(timeout_s)
        if self._circle is not None:
            self._circle.close()
        if thread.is_alive():
            self._remark(
                f"the last checkpoint was not on the disk {timeout_s:g} s after the end, and is left out"
            )

    # In the thread

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            while self._waiting:
                self._writing = True
                try:
                    copy = self._waiting.popleft()
                except IndexError:
                    break  # taken back meanwhile, for a newer one
                self._write_or_say(copy)
            self._writing = False
            if closing:
                return

    def _write_or_say(self, copy: Copy) -> None:
        """A failure costs this checkpoint, not the run; the next one is another try."""
        try:
            agreed = self._agreed(copy) if copy.shards else copy
            if agreed is None:
                return
            copy = agreed
            self._write(copy)
        except CircleBroken:
            self._say_once(
                "a checkpoint of sharded state was left out: the ranks, which write it together, have lost each other"
            )
        except Exception as error:
            self._in_trouble = True
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._say_once(
                f"checkpoints cannot be written into {self._folder}: {why}. The run goes on and tries again with the next"
            )
        else:
            if self._in_trouble:
                self._in_trouble = False
                self._told.clear()
                self._remark(
                    f"checkpoints can be written again, from number {copy.snapshot.number} (step {copy.snapshot.step}) on"
                )
        finally:
            copy.copied.release()

    def _write(self, copy: Copy) -> None:
        snapshot = copy.snapshot
        file = CheckpointFile(attempt=self._attempt, number=snapshot.number, rank=self._rank)
        copy.copied.wait()
        size = 0
        if copy.shards and self._circle is not None:
            folder = self._folder / copy.content["sharded"]["folder"]
            size = self._circle.write(folder, copy.shards.tensors())
        try:
            size += write_file(self._folder / file.name, copy.content, in_large=copy.copied.in_large)
        except OSError as error:
            # With room for one more than the last, the second last gives way: a retry needs the newest.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._drop(1, snapshot.best):
                raise
            size += write_file(self._folder / file.name, copy.content, in_large=copy.copied.in_large)
        part = CheckpointPart(
            number=snapshot.number,
            step=snapshot.step,
            epoch=snapshot.epoch,
            batch=snapshot.batch,
            file=file.name,
            size_bytes=size,
            worker=self._worker,
            names=snapshot.names if self._rank == 0 else (),
            metric=copy.content["metric"] if self._rank == 0 else {},
        )
        self._tell(part.to_payload())
        self._shelf.add(part)
        keep_last = self._keep_last if snapshot.keep_last is None else snapshot.keep_last
        self._drop(keep_last, snapshot.best)

    def _drop(self, keep_last: int, best: str | None) -> bool:
        """Remove what is not needed any more; whether there was any."""
        dropped = self._shelf.tidy(keep_last=keep_last, best=best)
        for part in dropped:
            self._tell(part.to_payload())
        return bool(dropped)

    def _agreed(self, copy: Copy) -> Copy | None:
        """The snapshot that all ranks have; None where another rank has none any more."""

        def newer(number: int) -> int:
            nonlocal copy
            copy.copied.release()
            while True:
                closing = self._closing
                while self._waiting:
                    try:
                        copy = self._waiting.popleft()
                    except IndexError:
                        break
                    if copy.snapshot.number >= number:
                        return copy.snapshot.number
                    copy.copied.release()
                if closing:
                    return GIVEN_UP
                self._wake.wait()
                self._wake.clear()

        assert self._circle is not None
        agreed = agree(self._circle.exchange, copy.snapshot.number, newer)
        return None if agreed == GIVEN_UP else copy

    def _forget(self, waiting: deque[Copy]) -> None:
        try:
            waiting.popleft().copied.release()
        except IndexError:
            pass  # the thread has just taken it

    def _say_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._remark(text)
