"""Where the events of a run come from: its controller while that answers, else the journal on this disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from jupyter_train.errors import RunNotFound
from jupyter_train.record import Event, RunState, unpack_event

if TYPE_CHECKING:
    from jupyter_train.control.client import ControllerClient
    from jupyter_train.store.reader import JournalReader
    from jupyter_train.store.store import Store

_JOURNAL_PERIOD_S = 0.25
_PAGES = 256  #: of 4 MiB: whoever writes faster than we read must not keep us for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a source had to say."""

    events: tuple[Event, ...] = ()
    lost: str = ""  #: why the run will never say more, although it has not ended


class EventSource(Protocol):
    """Events of one run, by number."""

    def poll(self, after: int, wait_s: float) -> Batch:
        """Events above ``after``, at once where there are some, else within ``wait_s``. Raises where nothing answers."""
        ...


class ControllerSource:
    """The controller, by long poll."""

    def __init__(self, control: ControllerClient, run_id: str) -> None:
        self._control = control
        self._run_id = run_id

    def poll(self, after: int, wait_s: float) -> Batch:
        """See :class:`EventSource`."""
        packed = self._control.events(self._run_id, after, wait_s)["events"]
        return Batch(events=tuple(unpack_event(data) for data in packed))


class StoreSource:
    """The journals on this disk, looked at every quarter of a second."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._clock = clock
        self._sleep = sleep
        self._journal: JournalReader | None = None

    def poll(self, after: int, wait_s: float) -> Batch:
        """See :class:`EventSource`."""
        until = self._clock() + wait_s
        while True:
            # Where it is is looked for in all journals; what is new is in the one that had the last news.
            self._journal = self._journal or self._store.journal_of(self._run_id)
            events = self._journal.events(self._run_id, after)
            if events:
                return Batch(events=tuple(events))
            left = until - self._clock()
            if left <= 0:
                break
            self._sleep(min(left, _JOURNAL_PERIOD_S))
        self._journal = None
        now = self._store.summary(self._run_id)
        if now.seq > after and (events := self._store.events(self._run_id, after)):
            return Batch(events=tuple(events))  # written since we looked; who hears of an end asks no more
        return Batch(lost=now.reason if now.state is RunState.LOST else "")


class FirstThatAnswers:
    """The controller; where it fails to answer or does not know the run (any more), the journal."""

    def __init__(self, first: EventSource, second: EventSource) -> None:
        self._first = first
        self._second = second

    def poll(self, after: int, wait_s: float) -> Batch:
        """See :class:`EventSource`."""
        try:
            return self._first.poll(after, wait_s)
        except Exception as error:
            # Whatever keeps the controller from answering: the journal may
            # still have the rest. What it lacks too is the first's to explain.
            try:
                return self._second.poll(after, wait_s)
            except RunNotFound:
                raise error from None


class HistoryFirst:
    """What there is already comes as one batch, which the journal has sooner than the controller sends it; news from ``then``."""

    def __init__(self, journal: EventSource, then: EventSource) -> None:
        self._journal = journal
        self._then = then
        self._has_history = False

    def poll(self, after: int, wait_s: float) -> Batch:
        """See :class:`EventSource`."""
        if self._has_history:
            return self._then.poll(after, wait_s)
        try:
            batch = self._journal.poll(after, 0.0)
        except Exception:
            # Not there, not readable: whoever has the news has the history too, or says why not.
            batch = Batch()
        if not batch.events:
            batch = all_events(self._then, after)
        self._has_history = True
        return batch


def all_events(source: EventSource, after: int) -> Batch:
    """All that ``source`` has above ``after``, page by page."""
    events: list[Event] = []
    for _ in range(_PAGES):
        batch = source.poll(after, 0.0)
        if not batch.events:
            break
        events += batch.events
        after = max(batch.events[-1].seq, after + 1)
    return replace(batch, events=tuple(events))
