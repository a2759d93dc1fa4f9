"""The live view of one run: one display, updated when something changed and it may cost something."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from jupyter_train.notebook.bundle import Picture, as_bundle, make_bundle, plain
from jupyter_train.notebook.output import RankOutput
from jupyter_train.notebook.pace import PICTURE_SHARE, TEXT_SHARE, Pace
from jupyter_train.notebook.screen import Screen
from jupyter_train.notebook.series import StepClock
from jupyter_train.record import Event, EventKind, RunState, RunView

logger = logging.getLogger("jupyter_train")

# matplotlib's import takes half a second of CPU: not while the first steps want it.
FIRST_PICTURE_S = 3.0


class LiveView:
    """Watches a follower and keeps its screen up to date.

    ``step`` and ``close`` come from the follower's thread; ``note``, ``remark``
    and ``show`` from the cell's. A lock keeps them apart.
    """

    def __init__(
        self,
        screen: Screen,
        name: str,
        *,
        output: RankOutput | None = None,
        remarks: Iterable[str] = (),
        meanwhile: str = "",
        at_once: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._screen = screen
        self._name = name
        self._output = output
        if output is not None:
            output.after_clear = self._show_again
        self._remarks = list(remarks)
        self._at_once = at_once  #: its run has a history, for which somebody waits
        self._meanwhile = meanwhile  #: a remark that holds until somebody has waited for the run
        self._note = ""
        self._clock = clock
        self._wall = wall
        self._cpu = cpu
        self._steps = StepClock()
        self._pace = Pace(share=TEXT_SHARE)
        self._picture_pace = Pace(share=PICTURE_SHARE)
        self._picture: Picture | None = None
        self._news = 0  #: events so far that a picture would show
        self._pictured = -1
        self._trained = False
        self._shown: tuple[Any, ...] = ()
        self._view: RunView | None = None
        self._connected = True
        self._lock = threading.Lock()

    def step(self, events: tuple[Event, ...], view: RunView, *, connected: bool) -> None:
        """News from the follower."""
        if self._output is not None:
            self._output.events(events)
        with self._lock:
            self._learn(events, view, connected=connected)
            if self._changed and not self._pace.due_in(self._clock()):
                self._draw(final=False)

    def due_in(self) -> float:
        """Seconds until the next drawing; far away while there is nothing new to draw."""
        output = self._output.due_in() if self._output is not None else float("inf")
        return min(output, self._pace.due_in(self._clock()) if self._changed else float("inf"))

    def close(self, view: RunView) -> None:
        """The end: the picture that stays."""
        if self._output is not None:
            self._output.close()
        over = view.state is not None and (view.state.is_terminal or view.state is RunState.LOST)
        with self._lock:
            self._learn((), view, connected=over)
            self._draw(final=True)

    def show(self, view: RunView) -> None:
        """Shows ``view`` now: the display is opened in the cell that asks for it."""
        with self._lock:
            self._learn((), view, connected=True)
            if not self._at_once:
                self._draw(final=False)
                return
            if view.seq:
                self._publish(final=False)
            else:
                self._screen.show(as_bundle(f"run {self._name}: reading what it did so far"), final=False)
            self._shown = ()  # what is there is less than what comes now

    def note(self, text: str) -> None:
        """Something to say for the moment ("stopping"), with the next drawing."""
        with self._lock:
            self._note = text

    def conclude(self, remarks: Iterable[str], *, again: bool = False) -> None:
        """After the end: what was learnt since, shown at once with the picture as it is.

        ``again`` shows it even where nothing was: a front end that only listens
        to the running cell (nbclient) has missed the end of a run in the background.
        """
        remarks = list(remarks)
        with self._lock:
            if self._view is None or not (remarks or self._note or again):
                return
            self._note = ""
            self._meanwhile = ""
            self._remarks += remarks
            self._publish(final=True)

    @property
    def _changed(self) -> bool:
        return self._state_shown() != self._shown

    def _state_shown(self) -> tuple[Any, ...]:
        seq = self._view.seq if self._view is not None else 0
        return (seq, self._connected, self._note)

    def _learn(self, events: tuple[Event, ...], view: RunView, *, connected: bool) -> None:
        if self._view is not None and view.given_up != self._view.given_up:
            self._picture = None  # of an attempt that does not count any more
        self._view, self._connected = view, connected
        self._steps.add(events)
        self._news += sum(event.kind is not EventKind.LOG or _is_proof(event) for event in events)
        if not self._trained and view.running_since is not None:
            self._trained = True
            first_s = 0.0 if self._at_once else FIRST_PICTURE_S
            self._picture_pace = Pace(share=PICTURE_SHARE, first_s=first_s)
            self._picture_pace.begin(self._clock())

    def _draw(self, *, final: bool) -> None:
        if self._trained and (final or not self._picture_pace.due_in(self._clock())):
            self._draw_picture()
        began = self._cpu()
        self._publish(final=final)
        self._pace.drawn(self._clock(), self._cpu() - began)

    def _draw_picture(self) -> None:
        view = self._view
        if view is None or self._news == self._pictured:
            return
        try:
            from jupyter_train.notebook import chart

            began = self._cpu()
            png = chart.draw(view, self._steps, now=self._wall())
            words = chart.summary_of_curves(view.curves)
            # What only the first one costs, imports and fonts, is no reason to wait long for the second.
            cost = self._cpu() - began if self._picture is not None else 0.0
            self._picture_pace.drawn(self._clock(), cost)
        except Exception as error:
            # A run must not lose its view over a picture.
            logger.debug("the chart failed", exc_info=True)
            text = f"no chart: {plain(repr(error), 200)}"
            if text not in self._remarks:
                self._remarks.append(text)
            return
        self._pictured = self._news
        if png is not None:
            self._picture = Picture(png=png, words=plain(f"Curves of run {self._name}: {words}"))

    def _publish(self, *, final: bool) -> None:
        self._shown = self._state_shown()
        self._screen.show(self._bundle(), final=final)

    def _show_again(self) -> None:
        """The cell cleared its output, and this with it."""
        with self._lock:
            if self._view is not None:
                self._screen.show_again(self._bundle())

    def _bundle(self) -> dict[str, Any]:
        assert self._view is not None
        return make_bundle(
            self._view,
            name=self._name,
            now=self._wall(),
            picture=self._picture,
            remarks=[*self._remarks, self._meanwhile] if self._meanwhile else self._remarks,
            connected=self._connected,
            note=self._note,
        )


def _is_proof(event: Event) -> bool:
    return event.payload.get("stream") == "proof"
