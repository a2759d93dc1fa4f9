"""How much of what a cell shows the page is given. Pure: times come in.

The Jupyter server drops every message of a kernel that sends more than 1 MB/s
of text, the display's too; and a page that holds hundreds of megabytes dies,
however slowly they came. The log has everything.
"""

from __future__ import annotations

BURST_BYTES = 200_000  #: shown at once
RATE_BYTES_PER_S = 20_000  #: after that: more than anybody reads
MOST_BYTES = 8_000_000  #: of one cell
REDRAW_S = 0.25  #: between two pictures in the same place
DISPLAYS_MOST = 1_000
DISPLAY_CHARACTERS_MOST = 64_000_000
DISPLAY_RATE = 1_000_000  #: characters of displays a second


class Throttle:
    """How much text may be shown now: a bucket, and an end of it."""

    def __init__(
        self, *, burst: float = BURST_BYTES, rate: float = RATE_BYTES_PER_S, most: float = MOST_BYTES
    ) -> None:
        self._burst = burst
        self._rate = rate
        self._left = most
        self._room = burst
        self._at: float | None = None
        self._is_flooded = False
        self.withheld = 0  #: characters not shown since the last that were

    def shown(self, text: str, now: float) -> str:
        """The part of ``text`` to show: whole lines while there is room, else nothing.

        After a flood nothing until there is room for a second of it, so that
        what is shown comes in pieces worth reading.
        """
        room = 0.0 if self.due_in(now) else min(self._room, self._left)
        size = _size(text)
        self._is_flooded = size > room
        if self._is_flooded:
            cut = text.rfind("\n", 0, int(room * len(text) / size)) + 1
            self.withheld += len(text) - cut
            text = text[:cut]
            size = _size(text)
        self._room -= size
        self._left -= size
        return text

    def due_in(self, now: float) -> float:
        """Seconds until text may be shown again; 0 where it may be shown now, infinity where it never may."""
        if self._at is not None:
            self._room = min(self._burst, self._room + (now - self._at) * self._rate)
        self._at = now
        if self._left <= 0:
            return float("inf")
        wanted = min(self._rate, self._burst) if self._is_flooded else 0.0
        return max(0.0, wanted - self._room) / self._rate

    def take_withheld(self) -> int:
        """How many characters were withheld, counted anew from here."""
        withheld, self.withheld = self.withheld, 0
        return withheld


class Redraws:
    """When displays may be shown, and how many."""

    def __init__(self, *, most: int = DISPLAYS_MOST, characters: int = DISPLAY_CHARACTERS_MOST) -> None:
        self._most = most
        self._characters = characters
        self._next = float("-inf")
        self.withheld = 0

    def due_in(self, now: float) -> float:
        """Seconds until pictures may change again."""
        return max(0.0, self._next - now)

    def drawn(self, characters: int, now: float) -> None:
        """Displays of so many characters were shown."""
        self._next = now + max(REDRAW_S, characters / DISPLAY_RATE)

    def admits(self, characters: int, *, update: bool) -> bool:
        """Whether one more display may be shown; an update takes no place on the page."""
        if update:
            return True
        if self._most <= 0 or self._characters < characters:
            self.withheld += 1
            return False
        self._most -= 1
        self._characters -= characters
        return True

    def take_withheld(self) -> int:
        """How many displays were withheld, counted anew from here."""
        withheld, self.withheld = self.withheld, 0
        return withheld


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
