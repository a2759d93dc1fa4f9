"""What the supervisor says to the process that has started it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from jupyter_train.cluster import logfile
from jupyter_train.cluster.lock import StartLock


class Starter:
    """Whoever started the cluster and waits to hear how that went: one line of JSON.

    Nobody else can start it until then, even if this one has left: the lock is shared with it.
    """

    def __init__(self, pipe: int | None, lock: StartLock) -> None:
        self._pipe = pipe
        self._lock = lock

    def tell_success(self) -> None:
        """All workers are there."""
        self._tell({})

    def tell_failure(self, reason: str, log: Path) -> None:
        """It ends, or ended; nothing happens where a success was told."""
        self._tell({"error": reason, "log": logfile.last_lines(log, 15)})

    def _tell(self, message: dict[str, str]) -> None:
        self._lock.release()
        if self._pipe is None:
            return
        with suppress(OSError):  # it did not wait
            os.write(self._pipe, json.dumps(message).encode() + b"\n")
        os.close(self._pipe)
        self._pipe = None
