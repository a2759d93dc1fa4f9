"""How often the view may be drawn: rarely enough to cost nobody anything. Pure: times come in."""

from __future__ import annotations

PERIOD_S = 2.0
# Of one core, well below 1 % together: on a machine with few cores the ranks pay for it.
TEXT_SHARE = 0.001
PICTURE_SHARE = 0.005


class Pace:
    """At most one drawing per ``period_s``, and at most ``share`` of one core spent on drawing."""

    def __init__(self, *, share: float, period_s: float = PERIOD_S, first_s: float = 0.0) -> None:
        self._period_s = period_s
        self._share = share
        self._next = float("-inf")
        self._first_s = first_s

    def begin(self, now: float) -> None:
        """The thing to be drawn has begun: the first drawing may follow ``first_s`` later."""
        self._next = now + self._first_s

    def due_in(self, now: float) -> float:
        """Seconds until the next drawing is allowed; 0: now."""
        return max(0.0, self._next - now)

    def drawn(self, now: float, cost_s: float) -> None:
        """A drawing ended at ``now`` (monotonic seconds) and took ``cost_s`` of CPU."""
        self._next = now + max(self._period_s, cost_s / self._share)
