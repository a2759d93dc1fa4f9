"""What rank 0 shows, under the cell, at a rate that no front end chokes on. Called from the live thread."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable

from jupyter_train.notebook.shown import Clear, Display, Shown, Text, condensed, given_up, settled, shown
from jupyter_train.notebook.stage import Stage, TextStage
from jupyter_train.notebook.throttle import Redraws, Throttle
from jupyter_train.record import Event

END_CHARACTERS = (
    2_000  #: shown of text that was withheld last, as soon as there is room and in any case at the end
)
_ANEW = "[the cell was started over: what stands above was shown by the attempt before]\n"


class RankOutput:
    """Brings on a stage what rank 0 shows."""

    def __init__(
        self,
        run: str,
        *,
        stage: Stage | None = None,
        clears: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clears``: all that stands on the stage is the run's, and goes when it is started over."""
        self.after_clear: Callable[[], None] = lambda: None  #: shows again what is not the cell's to clear
        self._run = run
        self._stage = stage or TextStage()
        self._clock = clock
        self._throttle = Throttle()
        self._redraws = Redraws()
        self._waiting: list[Shown] = []  #: for the next drawing
        self._is_to_clear = False
        self._clears = clears
        self._given_up = 0  #: attempts up to this one have nothing to show any more
        self._has_shown = False  #: something of the present attempt
        self._last: tuple[str, str] | None = None  #: the end of what was withheld, if nothing was shown since

    def events(self, events: Iterable[Event]) -> None:
        """Shows what is among ``events``, or keeps it until it is due."""
        events = list(events)
        if (given := given_up(events)) > self._given_up:
            self._given_up = given
            self._begin_anew()
        self._waiting += shown(e for e in events if not 0 < e.attempt <= self._given_up)
        if any(isinstance(piece, Display | Clear) for piece in self._waiting):
            self._waiting = condensed(self._waiting)
            if self._redraws.due_in(self._clock()):
                return
        self._show_waiting()
        if self._last is not None and not self._throttle.due_in(self._clock()):
            self._show_end()

    def due_in(self) -> float:
        """Seconds until there is something to show, events or not."""
        now = self._clock()
        waiting = self._redraws.due_in(now) if self._waiting else float("inf")
        withheld = self._throttle.due_in(now) if self._last is not None else float("inf")
        return min(waiting, withheld)

    def close(self) -> None:
        """The run has ended: shows the rest, says what was left out, if anything was, and shows the end of it."""
        self._waiting = condensed(self._waiting)
        self._show_waiting()
        if self._last is not None:
            self._show_end()
        self._say_withheld()

    def _begin_anew(self) -> None:
        """Another attempt shows all of it again: what stands there goes, or is marked where it cannot."""
        self._waiting, self._last, self._is_to_clear = [], None, False
        if self._has_shown and self._clears:
            self._clear()
        elif self._has_shown:
            self._stage.text("stderr", _ANEW)
        self._has_shown = False

    def _show_waiting(self) -> None:
        pieces, self._waiting = condensed(self._waiting), []
        characters = 0
        for piece in pieces:
            if isinstance(piece, Clear):
                self._is_to_clear = True
                if not piece.wait:
                    self._clear()
                continue
            if self._is_to_clear and not (isinstance(piece, Display) and piece.update):
                self._clear()
            if isinstance(piece, Text):
                self._write(piece.stream, piece.text)
            else:
                characters += self._display(piece)
        if any(isinstance(piece, Display | Clear) for piece in pieces):
            self._redraws.drawn(characters, self._clock())

    def _clear(self) -> None:
        self._is_to_clear = False
        self._last = None
        self._throttle, self._redraws = Throttle(), Redraws()
        self._stage.clear()
        self.after_clear()

    def _display(self, piece: Display) -> int:
        size = sum(len(v) if isinstance(v, str) else len(json.dumps(v)) for v in piece.data.values())
        self._has_shown = True
        if self._redraws.admits(size, update=piece.update):
            self._stage.display(piece)
        return size

    def _write(self, stream: str, written: str) -> None:
        text = settled(written)
        fits = self._throttle.shown(text, self._clock())
        left = text[len(fits) :]
        if fits:
            if self._throttle.withheld > len(left):
                self._say_withheld()
            self._stage.text(stream, fits)
        self._has_shown = True
        end = left[-END_CHARACTERS:]
        if left:
            self._last = (stream, end[end.find("\n", 0, -1) + 1 :])
        elif fits:
            self._last = None

    def _show_end(self) -> None:
        assert self._last is not None
        stream, text = self._last
        self._last = None
        self._throttle.withheld -= len(text)
        self._say_withheld()
        self._stage.text(stream, text)

    def _say_withheld(self) -> None:
        characters, displays = self._throttle.take_withheld(), self._redraws.take_withheld()
        for count, what in ((characters, "characters are"), (displays, "displays are")):
            if count:
                self._stage.text("stderr", f"[… {count:,} {what} only in the log: %train log {self._run}]\n")
