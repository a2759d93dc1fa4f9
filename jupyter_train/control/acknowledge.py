"""Tells agents that their events were taken in, so that they send more: at once, or when the journal has room.

Without it whatever a rank prints faster than the disk writes would gather in
the scheduler's memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.02

Send = Callable[[str, dict[str, Any]], None]


class Acknowledgements:
    """Of one controller. Belongs to the scheduler's event loop."""

    def __init__(self, send: Send, has_room: Callable[[], bool]) -> None:
        self._send = send
        self._has_room = has_room
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, worker: str, *, run_id: str, attempt: int, size: int) -> None:
        """Acknowledge one message of the agent on ``worker``; ``size`` as it said."""
        self._waiting.append(
            (worker, {"op": "train-ack", "run_id": run_id, "attempt": attempt, "size": size})
        )
        if self._timer is None:
            self._tell()

    def close(self) -> None:
        """Nobody is told any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._timer = None
        while self._waiting and self._has_room():
            worker, message = self._waiting.popleft()
            try:
                self._send(worker, message)
            except Exception:  # the worker has left meanwhile: its ranks are gone, too
                logger.debug("worker %s cannot be told", worker, exc_info=True)
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._tell)
