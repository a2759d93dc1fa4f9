"""Following one run on a thread: polls its events, folds them, tells those who watch.

The thread is named ``jupyter-train-live`` and never keeps the kernel from
exiting. It runs in a copy of the cell's context, so that what it prints lands
under the cell that started it, not under the one that runs by then.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from jupyter_train.notebook.source import EventSource
from jupyter_train.record import Event, RunState, RunView, fold

logger = logging.getLogger("jupyter_train")

POLL_S = 2.0
GIVE_UP_S = 60.0
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
# Ranks send up to 20 times a second, and each answer costs the kernel a
# millisecond: an old run is asked less often, so that following stays below 1 %.
_PAUSE_SHARE = 0.02
_PAUSE_S = 0.5


class Watcher(Protocol):
    """Who is told what the follower learns; all calls come from its thread."""

    def step(self, events: tuple[Event, ...], view: RunView, *, connected: bool) -> None:
        """New events (perhaps none) and the view with them."""
        ...

    def due_in(self) -> float:
        """Seconds after which ``step`` should be called even without news."""
        ...

    def close(self, view: RunView) -> None:
        """The run has ended, or nothing more can be learnt of it."""
        ...


class Follower:
    """Follows one run until it ends. ``view`` may be read from any thread at any time."""

    def __init__(
        self,
        source: EventSource,
        run_id: str,
        *,
        watchers: Iterable[Watcher] = (),
        give_up_s: float = GIVE_UP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.view = RunView(run_id=run_id)
        self.done = threading.Event()  #: the run has ended, or is lost from sight
        self.connected = True
        self.gave_up: BaseException | None = None  #: why it is lost from sight
        self._source = source
        self._watchers = list(watchers)
        self._give_up_s = give_up_s
        self._clock = clock
        self._halt = threading.Event()
        self._hurried = threading.Event()
        self._began = clock()
        self._thread: threading.Thread | None = None

    def start(self) -> Follower:
        """Starts the thread, in a copy of the caller's context."""
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._follow,), name="jupyter-train-live", daemon=True
        )
        self._thread.start()
        return self

    @property
    def is_following(self) -> bool:
        """Whether news still come in."""
        return not self.done.is_set()

    def stop(self) -> None:
        """Stops following; the run goes on. Returns at once."""
        self._halt.set()
        self._hurried.set()

    def hurry(self) -> None:
        """The end is near and somebody waits for it: no more pauses."""
        self._hurried.set()

    def join(self, timeout_s: float) -> None:
        """Waits for the thread."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _follow(self) -> None:
        try:
            self._poll_until_over()
        except BaseException as error:
            # Who waits for the end must hear of it, whatever broke here.
            self.gave_up = error
            logger.debug("following %s ended", self.view.run_id, exc_info=True)
        finally:
            for watcher in self._watchers:
                self._tell(watcher.close, self.view)
            self.done.set()

    def _poll_until_over(self) -> None:
        failures = 0
        silent_since: float | None = None
        while not self._halt.is_set():
            try:
                batch = self._source.poll(self.view.seq, self._wait_s())
            except Exception as error:
                # The cluster may be gone, or only the network for a while.
                now = self._clock()
                silent_since = now if silent_since is None else silent_since
                if now - silent_since >= self._give_up_s:
                    self.gave_up = error
                    return
                self.connected = False
                self._step(())
                self._halt.wait(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1
                continue
            failures, silent_since, self.connected = 0, None, True
            if batch.events:
                self.view = fold(batch.events, self.view)
            elif batch.lost:
                self.view = replace(self.view, state=RunState.LOST, reason=batch.lost)
                return
            self._step(batch.events)
            if self.view.state is not None and self.view.state.is_terminal:
                return
            if batch.events:
                self._hurried.wait(min(_PAUSE_S, (self._clock() - self._began) * _PAUSE_SHARE))

    def _wait_s(self) -> float:
        return min([POLL_S, *(max(0.02, watcher.due_in()) for watcher in self._watchers)])

    def _step(self, events: tuple[Event, ...]) -> None:
        for watcher in self._watchers:
            self._tell(watcher.step, events, self.view, connected=self.connected)

    @staticmethod
    def _tell(call: Callable[..., None], *args: object, **kwargs: object) -> None:
        try:
            call(*args, **kwargs)
        except Exception:
            # A view that cannot be drawn must not end the following: the
            # cell waits for it.
            logger.debug("a view of the run failed", exc_info=True)
