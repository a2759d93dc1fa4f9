"""From the ranks' pipes to the scheduler: events in batches, at most twenty a second, urgent ones at once.

What the controller has not acknowledged is bounded: who sees that the relay is
full reads no more from its rank until it has room, so that in the end the rank waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

INTERVAL_S = 0.05
WINDOW_BYTES = 2 << 20  #: on the way to the controller, or waiting to be sent

Send = Callable[[dict[str, object]], None]


class Relay:
    """Batches the events of one attempt. Lives in the worker's event loop."""

    def __init__(self, send: Send, *, run_id: str, attempt: int) -> None:
        self._send = send
        self._run_id = run_id
        self._attempt = attempt
        self._events: list[bytes] = []
        self._waiting_bytes = 0
        self._unacknowledged_bytes = 0
        self._unacknowledged: deque[dict[str, object]] = deque()
        self._wait_for_room: list[Callable[[], None]] = []
        self._sent = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_full(self) -> bool:
        """No more should be added for now. What is added all the same is passed on."""
        return self._waiting_bytes + self._unacknowledged_bytes >= WINDOW_BYTES

    def when_room(self, call: Callable[[], None]) -> None:
        """Call ``call`` once, when the relay is not full any more."""
        self._wait_for_room.append(call)

    def add(self, events: Sequence[bytes], *, urgent: bool = False) -> None:
        """Pass these on, in order."""
        self._events += events
        self._waiting_bytes += sum(map(len, events))
        if not self._events:
            return
        loop = asyncio.get_running_loop()
        due = self._sent + INTERVAL_S
        if urgent or self.is_full or loop.time() >= due:
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
        size, self._waiting_bytes = self._waiting_bytes, 0
        self._unacknowledged_bytes += size
        self._sent = asyncio.get_running_loop().time()
        message: dict[str, object] = {
            "op": "train-events",
            "run_id": self._run_id,
            "attempt": self._attempt,
            "events": events,
            "size": size,
        }
        self._unacknowledged.append(message)
        self._send(message)

    def acknowledged(self, size: int) -> None:
        """The controller has taken in a message of that size."""
        self._unacknowledged_bytes = max(0, self._unacknowledged_bytes - size)
        if self._unacknowledged:
            # Dask holds on to the last thousand messages that it sent, for its own debugging.
            self._unacknowledged.popleft()["events"] = ()
        while self._wait_for_room and not self.is_full:
            self._wait_for_room.pop(0)()
