"""Unix time that never goes back: of two runs, who ended later must not depend on a clock that was set meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

_STEP_S = 1e-6  #: two readings differ, so that events can be told apart by them


def since_boot() -> float:
    """Seconds that go on while the machine sleeps, where the system counts them."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boottime) if boottime is not None else time.monotonic()


class SteadyClock:
    """Follows the machine's clock forward; where that is set back, goes on as before. Not thread-safe.

    Args:
        wall: unix time in seconds; may jump.
        steady: seconds from any origin; never jumps.
    """

    def __init__(
        self, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = since_boot
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._ahead = wall() - steady()  #: of our time to the steady one; it only grows
        self._last = 0.0

    def now(self) -> float:
        """Unix time in seconds, later than at every call before."""
        steady = self._steady()
        self._ahead = max(self._ahead, self._wall() - steady)
        self._last = max(steady + self._ahead, self._last + _STEP_S)
        return self._last

    @property
    def set_back_s(self) -> float:
        """By how much the machine's clock is behind this one: it was set back by so much."""
        return max(0.0, self._steady() + self._ahead - self._wall())
