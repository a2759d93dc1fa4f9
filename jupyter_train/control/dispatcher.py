"""Carries out what the machines of the runs decide: the one place where control touches workers, clock and journal.

Everything here runs in the scheduler's event loop, in steps of a millisecond
or two: what waits is a task, what touches a disk is in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed.comm import get_address_host

from jupyter_train.control.clock import SteadyClock
from jupyter_train.control.errands import Errands
from jupyter_train.control.live import LiveRun
from jupyter_train.control.messages import (
    Abandon,
    Announce,
    CheckpointKept,
    Command,
    Free,
    Input,
    KillDeadline,
    Launch,
    PlaceAgain,
    Placed,
    Queued,
    RankErred,
    RankHung,
    ReadSpool,
    Remark,
    Report,
    SetTimer,
    StacksDeadline,
    StartDeadline,
    StopRanks,
    StopRequested,
    TakeStacks,
    TimeoutReached,
    Timer,
    WorkerLost,
)
from jupyter_train.control.placement import Seat, check_fits
from jupyter_train.control.waitlist import Queue, Request, joined, left, plan
from jupyter_train.control.words import set_back_sentence
from jupyter_train.errors import RunNotFound
from jupyter_train.home import RUN_ID
from jupyter_train.record import Event, EventKind, RunSpec, checkpoint_part, unpack_event

if TYPE_CHECKING:
    from distributed import Scheduler

    from jupyter_train.store.journal import JournalWriter

logger = logging.getLogger(__name__)

RETRY_S = 1.0  #: workers also become free in ways of which nobody tells the controller
_RINGS: dict[Timer, Input] = {
    Timer.START: StartDeadline(),
    Timer.TIMEOUT: TimeoutReached(),
    Timer.STACKS: StacksDeadline(),
    Timer.KILL: KillDeadline(),
}

SLICE_S = 0.002  #: events are taken in for so long before others get their turn
IN_MEMORY = 16  #: ended runs whose specification and newest events stay in memory
REPLACED_S = 30.0  #: so soon a lost worker is replaced, where somebody looks after the cluster
SET_BACK_S = 2.0  #: less is a clock that is kept right by little steps


class Dispatcher:
    """The runs of one controller."""

    def __init__(self, scheduler: Scheduler, journal: JournalWriter, threads: ThreadPoolExecutor) -> None:
        self.runs: dict[str, LiveRun] = {}
        self.agents: dict[str, bool] = {}  #: worker → whether its zygote is ready
        self.last_end = time.monotonic()  #: of a run; before the first one, of the controller's start
        self.is_open = True
        self._scheduler = scheduler
        self._journal = journal
        self._clock = SteadyClock()
        self._errands = Errands(scheduler, threads, feed=self.feed, relay=self.relay)
        self._queue: Queue = ()  #: runs that wait for workers
        self._losses: list[tuple[float, int]] = []  #: when a worker was lost, and how many there were before
        self._held: dict[str, str] = {}  #: worker → the run whose rank it has
        self._retry: asyncio.TimerHandle | None = None
        self._stopped_early: list[str] = []  #: ids of runs that were to be stopped before they came
        self._ended: list[str] = []  #: runs of which all is still in memory, oldest end first
        self._acts: dict[type[Command], Callable[[LiveRun, Any], None]] = {
            Announce: self._announce,
            Report: self._report,
            Remark: self._remark,
            Launch: self._launch,
            StopRanks: self._stop_ranks,
            ReadSpool: self._read_spool,
            TakeStacks: self._take_stacks,
            SetTimer: self._set_timer,
            Free: self._free,
            Abandon: self._abandon,
            PlaceAgain: self._place_again,
        }

    # What others ask

    def submit(self, spec: RunSpec) -> LiveRun:
        """Take a run in, once: a second call with its id changes nothing.

        Raises:
            NotEnoughWorkers: the cluster is too small.
            ValueError: the specification makes no sense.
        """
        known = self.runs.get(spec.run_id)
        if known is not None:
            return known
        if not RUN_ID.fullmatch(spec.run_id):
            raise ValueError(f"{spec.run_id!r} is not a run id")
        if spec.ranks < 1:
            raise ValueError(f"a run has at least one rank, not {spec.ranks}")
        check_fits(spec.ranks, len(self._scheduler.workers), spec.cluster)
        run = self.runs[spec.run_id] = LiveRun(spec, self._clock.now)
        self._queue = joined(self._queue, Request(run_id=spec.run_id, ranks=spec.ranks))
        self.feed(run, Queued(queue_place=0))
        if spec.run_id in self._stopped_early:
            self.feed(run, StopRequested(reason="stopped while it was submitted"))
        self.place()
        return run

    def stop(self, run_id: str, *, force: bool, reason: str) -> LiveRun:
        """Have a run end. The order may overtake the submission that it is for, and holds all the same.

        Raises:
            RunNotFound: this controller does not have it (yet).
        """
        if run_id not in self.runs:
            self._stopped_early = [*self._stopped_early[-99:], run_id]
        run = self.run(run_id)
        self.feed(run, StopRequested(force=force, reason=reason))
        return run

    def run(self, run_id: str) -> LiveRun:
        """The run of that id.

        Raises:
            RunNotFound: this controller never had it.
        """
        try:
            return self.runs[run_id]
        except KeyError:
            raise RunNotFound(f"the controller of this cluster has no run {run_id}") from None

    @property
    def active(self) -> list[LiveRun]:
        """Runs that have not ended, oldest first."""
        return [r for r in self.runs.values() if not r.machine.is_over]

    @property
    def is_waiting(self) -> bool:
        """Runs wait for workers."""
        return bool(self._queue)

    def holder(self, worker: str) -> str | None:
        """The run whose rank ``worker`` has."""
        return self._held.get(worker)

    # What happens

    def feed(self, run: LiveRun, given: Input) -> None:
        """Let the run's machine decide what follows from ``given``, and do it."""
        for command in run.machine.handle(given):
            self._acts[type(command)](run, command)

    def agent_seen(self, worker: str, is_ready: bool) -> None:
        """The agent on ``worker`` has spoken."""
        if worker not in self._scheduler.workers:
            return
        is_new = worker not in self.agents
        self.agents[worker] = is_ready
        if is_new:
            self._errands.probe(worker, lambda: None)  # leaves an open connection for the launch
        self.place()

    def probe(self, worker: str) -> None:
        """Look whether an agent is on ``worker``, which has not spoken yet."""

        def found() -> None:
            if worker in self._scheduler.workers:
                self.agents.setdefault(worker, False)
                self.place()

        self._errands.probe(worker, found)

    def worker_lost(self, worker: str) -> None:
        """``worker`` has left the cluster."""
        self.agents.pop(worker, None)
        self._losses.append((time.monotonic(), len(self._scheduler.workers.keys() - {worker}) + 1))
        run_id = self._held.pop(worker, None)
        if run_id is not None:
            lost = WorkerLost(worker=worker, is_host_lost=self._is_host_lost(worker))
            self.feed(self.runs[run_id], lost)
        self.place()

    def rank_waits(self, run: LiveRun, attempt: int, *, on: int, hung: str) -> None:
        """Ranks wait for another one, ``on``, which hangs in the way that ``hung`` says; empty: it may only be slow."""
        if hung:
            self.feed(run, RankHung(attempt=attempt, rank=on, text=hung))
        elif attempt == run.machine.attempt:
            for place in run.machine.places:
                if place.rank == on:
                    self._errands.note_stacks(run, attempt, place.worker)

    async def relay(self, run: LiveRun, packed: Iterable[bytes]) -> None:
        """Take in events that ranks and agents packed, in order; others get their turn in between."""
        until = time.monotonic() + SLICE_S
        batch: list[tuple[Event, bytes | None]] = []
        for data in packed:
            event = _checked(run, data)
            if event is not None:
                batch.append((event, data))
            if time.monotonic() > until:
                self._record(run, batch)
                batch = []
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S
        self._record(run, batch)

    def place(self) -> None:
        """Start what can be started now, and tell the others what they wait for."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if not self._queue:
            return
        decided = plan(self._queue, self._seats(), coming=self._coming())
        self._queue = decided.queue
        for run_id, places in decided.placed:
            self._held.update({p.worker: run_id for p in places})
        for run_id, places in decided.placed:
            self.feed(self.runs[run_id], Placed(places=places))
        for waiting in decided.waiting:
            self.feed(
                self.runs[waiting.run_id], Queued(queue_place=waiting.queue_place, reason=waiting.reason)
            )
        if self._queue:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self.place)

    def look_at_clock(self) -> None:
        """Tell runs that go on where the clock of this machine was set back: their times are not its any more."""
        back_s = self._clock.set_back_s
        for run in self.active if back_s > SET_BACK_S else []:
            if back_s > run.set_back_s + SET_BACK_S:
                run.set_back_s = back_s
                self._record(run, [(run.remark_event(set_back_sentence(socket.gethostname(), back_s)), None)])

    async def end_all(self, reason: str, within_s: float) -> None:
        """End every run: the cluster goes away."""
        until = time.monotonic() + within_s
        for run in self.active:
            self.feed(run, StopRequested(force=True, reason=reason))
        for run in self.active:
            while not run.machine.is_over and time.monotonic() < until:
                await run.changed(max(0.0, until - time.monotonic()))
        for run in self.active:
            self.feed(run, KillDeadline())
            if not run.machine.is_over:
                self.feed(run, KillDeadline())

    async def close(self) -> None:
        """Cancel what is under way and wake who waits. Nothing is decided any more."""
        self.is_open = False
        if self._retry is not None:
            self._retry.cancel()
        for run in self.runs.values():
            run.cancel_timers()
            run.notify()
        await self._errands.close()

    # Commands

    def _announce(self, run: LiveRun, told: Announce) -> None:
        self._record(run, [(run.state_event(told), None)])
        if told.state.is_terminal:
            run.cancel_timers()
            self.last_end = time.monotonic()
            if any(waiting.run_id == run.spec.run_id for waiting in self._queue):
                self._queue = left(self._queue, run.spec.run_id)
                self.place()
            self._ended.append(run.spec.run_id)
            if len(self._ended) > IN_MEMORY:
                self.runs[self._ended.pop(0)].forget()

    def _report(self, run: LiveRun, told: Report) -> None:
        self._record(run, [(run.error_event(told), None)])

    def _remark(self, run: LiveRun, told: Remark) -> None:
        self._record(run, [(run.remark_event(told.text), None)])

    def _launch(self, run: LiveRun, order: Launch) -> None:
        self._errands.launch(run, order)

    def _stop_ranks(self, run: LiveRun, order: StopRanks) -> None:
        for worker in order.workers:
            self._errands.stop(run, order.attempt, worker, order.mode)

    def _read_spool(self, run: LiveRun, order: ReadSpool) -> None:
        def beside() -> str | None:
            return next((w for w in self.agents if self._scheduler.workers[w].host == order.host), None)

        self._errands.read_spool(run, order, beside)

    def _take_stacks(self, run: LiveRun, order: TakeStacks) -> None:
        self._errands.take_stacks(run, order)

    def _set_timer(self, run: LiveRun, order: SetTimer) -> None:
        given = _RINGS[order.timer]
        if (old := run.timers.pop(order.timer, None)) is not None:
            old.cancel()
        run.timers[order.timer] = asyncio.get_running_loop().call_later(order.after_s, self.feed, run, given)

    def _free(self, run: LiveRun, order: Free) -> None:
        for worker in order.workers:
            if self._held.get(worker) == run.spec.run_id:
                del self._held[worker]
        self.place()

    def _place_again(self, run: LiveRun, order: PlaceAgain) -> None:
        """Before every run that waits for its first attempt."""
        request = Request(run_id=run.spec.run_id, ranks=run.spec.ranks, has_begun=True)
        self._queue = joined(self._queue, request)
        self._free(run, Free(workers=order.workers))

    def _abandon(self, run: LiveRun, order: Abandon) -> None:
        for worker in order.workers:
            free = partial(self._free, run, Free(workers=(worker,)))
            self._errands.wait_for_agent(run, order.attempt, worker, free)

    # Tools

    def _record(self, run: LiveRun, events: list[tuple[Event, bytes | None]]) -> None:
        """Number, keep, journal and tell ``events``; the machine hears of errors that come from outside."""
        if run.log.last and not run.knows_trouble and (trouble := self._journal.trouble):
            run.knows_trouble = True  # once: a disk that stays full would fill the log as well
            events = [(run.remark_event(trouble), None), *events]  # before a state that ends the run
        new = run.log.add(events)
        if not new.events:
            return
        try:
            self._journal.append(run.spec.run_id, new.events, new.packed)
        except RuntimeError:  # closed: the scheduler is on its way out
            logger.warning("run %s: events came after the journal was closed", run.spec.run_id)
        run.notify()
        for event in new.events:
            if (told := _told(event)) is not None:
                self.feed(run, told)

    def _is_host_lost(self, worker: str) -> bool:
        """Whether ``worker``, which has just left, was the last one on a host that is not our own."""
        host = get_address_host(worker)
        others = [state.host for address, state in self._scheduler.workers.items() if address != worker]
        return host not in (get_address_host(self._scheduler.address), *others)

    def _seats(self) -> list[Seat]:
        return [
            Seat(
                worker=worker,
                name=str(state.name),
                host=state.host,
                has_agent=worker in self.agents and state.status.name == "running",
                is_ready=self.agents.get(worker, False),
                run_id=self._held.get(worker, ""),
            )
            for worker, state in self._scheduler.workers.items()
        ]

    def _coming(self) -> int:
        """Workers that were lost just now: a run that needs them all does not lose its turn over it."""
        since = time.monotonic() - REPLACED_S
        self._losses = [(at, before) for at, before in self._losses if at > since]
        now = len(self._scheduler.workers)
        return max((0, *(before - now for _, before in self._losses)))


def _checked(run: LiveRun, data: bytes) -> Event | None:
    """The event in ``data``, unless it is damaged or not for a rank to tell."""
    try:
        event = unpack_event(data)
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("run %s: an event cannot be read: %s", run.spec.run_id, error)
        return None
    is_fine = (
        event.run_id == run.spec.run_id
        and event.kind is not EventKind.STATE
        and 0 < event.attempt <= run.machine.attempt
        and event.rank is not None
        and 0 <= event.rank < run.spec.ranks
    )
    return event if is_fine else None


def _told(event: Event) -> Input | None:
    """What the machine has to know of an event of a rank's own."""
    if event.rank is None or not event.rank_seq:
        return None
    if event.kind is EventKind.ERROR:
        return _erred(event, event.rank)
    if event.kind is EventKind.CHECKPOINT and not event.payload.get("begun"):
        try:
            part = checkpoint_part(event.payload)
        except ValueError as error:
            logger.warning("run %s: rank %s: %s", event.run_id, event.rank, error)
        else:
            return CheckpointKept(attempt=event.attempt, rank=event.rank, part=part)
    return None


def _erred(event: Event, rank: int) -> RankErred:
    payload = event.payload
    return RankErred(
        attempt=event.attempt,
        rank=rank,
        type=str(payload.get("type", "Exception")),
        message=str(payload.get("message", "")),
        secondary=bool(payload.get("secondary")),
    )
