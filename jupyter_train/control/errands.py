"""What takes its time: calls to agents and reads of spools, each a task in the scheduler's event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jupyter_train.control.agents import AgentError, Agents
from jupyter_train.control.live import LiveRun
from jupyter_train.control.messages import (
    Input,
    Launch,
    Launched,
    LaunchFailed,
    Mode,
    ReadSpool,
    SpoolRead,
    StacksTaken,
    TakeStacks,
)
from jupyter_train.control.placement import Place
from jupyter_train.control.spool import read_tail, spool_path

if TYPE_CHECKING:
    from distributed import Scheduler

logger = logging.getLogger(__name__)

ORPHANS_S = 0.15  #: after the death of a worker its rank lives on for up to 0.13 s
SPOOL_S = 0.3
SETTLE_S = 0.2
STACKS_S = 0.9
RETRY_S = 1.0

Feed = Callable[[LiveRun, Input], None]
Relay = Callable[[LiveRun, Iterable[bytes]], Awaitable[None]]


class Errands:
    """Goes to the agents on behalf of the dispatcher, and feeds what comes of it to the machines of the runs."""

    def __init__(
        self, scheduler: Scheduler, threads: ThreadPoolExecutor, *, feed: Feed, relay: Relay
    ) -> None:
        self._scheduler = scheduler
        self._threads = threads
        self._feed = feed
        self._relay = relay
        self._agents = Agents(scheduler)
        self._tasks: set[asyncio.Task[Any]] = set()

    def launch(self, run: LiveRun, order: Launch) -> None:
        """Have all ranks launched; the run hears of each one."""
        self._start(self._launch(run, order), f"launch {run.spec.run_id}")

    def stop(self, run: LiveRun, attempt: int, worker: str, mode: Mode) -> None:
        """Have the rank on ``worker`` ended."""
        self._start(self._stop(run, attempt, worker, mode), f"{mode} {run.spec.run_id} on {worker}")

    def read_spool(self, run: LiveRun, order: ReadSpool, beside: Callable[[], str | None]) -> None:
        """Relay what a lost worker's rank left on disk; ``beside`` names an agent on its host."""
        self._start(self._read_spool(run, order, beside), f"read the spool of {run.spec.run_id}")

    def take_stacks(self, run: LiveRun, order: TakeStacks) -> None:
        """Have the stacks of a rank put on record; the run hears of them."""
        self._start(self._take_stacks(run, order), f"stacks of rank {order.rank} of {run.spec.run_id}")

    def note_stacks(self, run: LiveRun, attempt: int, worker: str) -> None:
        """Have the stacks of the rank on ``worker`` put on record; it may only be slow."""
        self._start(self._stacks(run, attempt, worker), f"stacks of {run.spec.run_id} on {worker}")

    def wait_for_agent(self, run: LiveRun, attempt: int, worker: str, answered: Callable[[], None]) -> None:
        """Order the kill of an abandoned rank until its agent answers, then call ``answered``."""
        self._start(self._wait_for_agent(run, attempt, worker, answered), f"wait for {worker}")

    def probe(self, worker: str, answered: Callable[[], None]) -> None:
        """Call ``answered`` if there is an agent on ``worker``. Leaves an open connection for the launch."""
        self._start(self._probe(worker, answered), f"probe {worker}")

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _launch(self, run: LiveRun, order: Launch) -> None:
        """The agent of rank 0 opens the meeting point, then all agents fork their ranks at the same time."""
        several = len({p.host for p in order.places}) > 1
        try:
            master = await self._agents.rendezvous(
                order.places[0], run_id=run.spec.run_id, attempt=order.attempt, host_visible=several
            )
            if run.machine.is_ending:
                raise AgentError("RunCancelled", "the run ended before its ranks were launched")
            told = replace(run.spec, whole=order.whole, resume=order.resume, provenance={})
            spec = told.to_dict()
        except AgentError as error:
            await self._settle(order.places[0].worker, error)
            for place in order.places:
                self._feed(run, _launch_failed(order, place, error))
            return
        await asyncio.gather(*(self._launch_one(run, order, p, spec, master) for p in order.places))

    async def _launch_one(
        self, run: LiveRun, order: Launch, place: Place, spec: dict[str, Any], master: tuple[str, int]
    ) -> None:
        try:
            await self._agents.launch(
                place,
                run_id=run.spec.run_id,
                attempt=order.attempt,
                spec=spec,
                world_size=len(order.places),
                master=master,
            )
        except AgentError as error:
            await self._settle(place.worker, error)
            if error.is_silence:  # it may have been launched with its answer lost
                self.stop(run, order.attempt, place.worker, "kill")
            self._feed(run, _launch_failed(order, place, error))
        else:
            self._feed(run, Launched(attempt=order.attempt, worker=place.worker))

    async def _settle(self, worker: str, error: AgentError) -> None:
        """A call fails a moment before the loss of its worker is known, which says more."""
        until = time.monotonic() + SETTLE_S
        while error.is_silence and worker in self._scheduler.workers and time.monotonic() < until:
            await asyncio.sleep(0.01)

    async def _stop(self, run: LiveRun, attempt: int, worker: str, mode: Mode) -> None:
        if worker not in self._scheduler.workers:
            return
        try:
            await self._agents.stop(worker, run_id=run.spec.run_id, attempt=attempt, mode=mode)
        except AgentError as error:  # its deadline is kept by the machine
            logger.warning("run %s: %s its rank: %s", run.spec.run_id, mode, error.message)

    async def _read_spool(self, run: LiveRun, order: ReadSpool, beside: Callable[[], str | None]) -> None:
        try:
            await asyncio.sleep(ORPHANS_S)
            events = await asyncio.wait_for(self._spooled(run, order, beside), SPOOL_S)
            await self._relay(run, events)
        except (AgentError, TimeoutError) as error:
            logger.warning("run %s: the last events of rank %s: %s", run.spec.run_id, order.rank, error)
        finally:
            self._feed(run, SpoolRead(worker=order.worker))

    async def _spooled(
        self, run: LiveRun, order: ReadSpool, beside: Callable[[], str | None]
    ) -> Iterable[bytes]:
        run_id, attempt, rank = run.spec.run_id, order.attempt, order.rank
        events = await asyncio.get_running_loop().run_in_executor(
            self._threads, read_tail, spool_path(run_id, attempt, rank), run.log.mark(attempt, rank)
        )
        if events is not None:
            return events
        agent = beside()
        if agent is None:
            return []
        return await self._agents.spool(agent, run_id=run_id, attempt=attempt, within_s=SPOOL_S)

    async def _take_stacks(self, run: LiveRun, order: TakeStacks) -> None:
        others = [p.worker for p in run.machine.places if p.worker != order.worker]
        shorts = [self._stacks(run, order.attempt, worker, short=True) for worker in others]
        told, *_ = await asyncio.gather(self._stacks(run, order.attempt, order.worker), *shorts)
        text = told.get(order.rank, "")
        self._feed(run, StacksTaken(attempt=order.attempt, rank=order.rank, text=text))

    async def _stacks(
        self, run: LiveRun, attempt: int, worker: str, *, short: bool = False
    ) -> dict[int, str]:
        try:
            return await self._agents.stacks(
                worker, run_id=run.spec.run_id, attempt=attempt, short=short, within_s=STACKS_S
            )
        except AgentError as error:
            logger.warning("run %s: the stacks of its rank on %s: %s", run.spec.run_id, worker, error)
            return {}

    async def _wait_for_agent(
        self, run: LiveRun, attempt: int, worker: str, answered: Callable[[], None]
    ) -> None:
        while worker in self._scheduler.workers:
            try:
                await self._agents.stop(worker, run_id=run.spec.run_id, attempt=attempt, mode="kill")
            except AgentError:
                await asyncio.sleep(RETRY_S)
            else:
                answered()
                return

    async def _probe(self, worker: str, answered: Callable[[], None]) -> None:
        try:
            await self._agents.probe(worker)
        except AgentError as error:
            logger.info("no agent on %s: %s", worker, error.message)
        else:
            answered()

    def _start(self, work: Coroutine[Any, Any, object], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"jupyter-train: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)


def _launch_failed(order: Launch, place: Place, error: AgentError) -> LaunchFailed:
    return LaunchFailed(attempt=order.attempt, worker=place.worker, type=error.type, message=error.message)
