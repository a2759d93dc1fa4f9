"""From the ranks' pipes to the scheduler: events in batches, at most twenty a second, urgent ones at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

INTERVAL_S = 0.05

Send = Callable[[dict[str, object]], None]


class Relay:
    """Batches the events of one attempt. Lives in the worker's event loop."""

    def __init__(self, send: Send, *, run_id: str, attempt: int) -> None:
        self._send = send
        self._run_id = run_id
        self._attempt = attempt
        self._events: list[bytes] = []
        self._sent = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, events: Sequence[bytes], *, urgent: bool = False) -> None:
        """Pass these on, in order."""
        self._events += events
        if not self._events:
            return
        loop = asyncio.get_running_loop()
        due = self._sent + INTERVAL_S
        if urgent or loop.time() >= due:
            self.flush()
        elif self._timer is None:
            self._timer = loop.call_at(due, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._events:
            return
        events, self._events = self._events, []
        self._sent = asyncio.get_running_loop().time()
        self._send({"op": "train-events", "run_id": self._run_id, "attempt": self._attempt, "events": events})
