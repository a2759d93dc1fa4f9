"""The controller: a Dask scheduler plugin that takes runs in, and outlives every kernel.

A thin shell: the names under which it is called, and what the scheduler tells
it, passed on to the :class:`~jupyter_train.control.dispatcher.Dispatcher`.
Stream handlers must never raise: Dask would drop the worker.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from distributed import Scheduler, SchedulerPlugin
from distributed.scheduler import WorkerState
from tornado.ioloop import PeriodicCallback

from jupyter_train._version import __version__
from jupyter_train.boot import boot_id
from jupyter_train.control.acknowledge import Acknowledgements
from jupyter_train.control.dispatcher import Dispatcher
from jupyter_train.control.live import LiveRun
from jupyter_train.control.messages import ExitCause, RankExited, RankReady
from jupyter_train.control.placement import natural_order
from jupyter_train.control.readers import Readers, unread_timeout_s
from jupyter_train.errors import StoreError, TrainError
from jupyter_train.home import home, journals_folder, private_folder
from jupyter_train.record import RunSpec, unpack_event, whole_loops
from jupyter_train.store.journal import JournalWriter
from jupyter_train.store.liveness import this_moment, this_process
from jupyter_train.store.reader import JournalReader

logger = logging.getLogger(__name__)

PROTOCOL = 1
NAME = "jupyter-train-controller"
AGENT = "jupyter-train-agent"
REPLY_BYTES = 4 * 2**20
LONGEST_WAIT_S = 60.0
FAREWELL_S = 1.0
PROBE_EVERY_S = 0.5
AWAKE_EVERY_MS = 500
_COMMIT_TRIES = 40

_OWN_CLIENTS = ("Client-worker-", "Client-jupyter-train-supervisor")

_HANDLERS = ("train_hello", "train_submit", "train_events", "train_journal", "train_stop")
_STREAM_HANDLERS = {"train-events": "_on_events", "train-rank": "_on_rank", "train-agent": "_on_agent"}


class Controller(SchedulerPlugin):  # type: ignore[misc]
    """The runs of one cluster. Made in a kernel, pickled to the scheduler, alive from ``start`` to ``close`` there."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.id = ""
        self._dispatcher: Dispatcher | None = None

    # The scheduler's calls

    async def start(self, scheduler: Scheduler) -> None:
        """Open the journal and answer to the remote calls that docs/architecture.md names.

        Where a controller lives already, this one stays out of the way: two
        kernels that register at the same moment both get here.
        """
        living = getattr(scheduler.handlers.get("train_hello"), "__self__", None)
        if living is not None:
            await living._opened
            self.__dict__.update(living.__dict__)
            return
        self._scheduler = scheduler
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix=NAME)
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._probed: dict[str, float] = {}
        self._client_left = time.monotonic()
        self._boot = boot_id()
        for name in _HANDLERS:
            scheduler.handlers[name] = getattr(self, name)
        for op, name in _STREAM_HANDLERS.items():
            scheduler.stream_handlers[op] = getattr(self, name)
        self.id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        try:
            self._journal = await asyncio.get_running_loop().run_in_executor(
                self._threads, _open_journal, self.id
            )
        except BaseException as error:
            self._refuse_from_now_on()
            self._opened.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))
            self._opened.exception()  # whoever awaits it hears of it, and that may be nobody
            raise
        self._dispatcher = Dispatcher(scheduler, self._journal, self._threads)
        self._acknowledgements = Acknowledgements(scheduler.worker_send, lambda: self._journal.has_room)
        self._readers = Readers(self._events, unread_timeout_s=unread_timeout_s())
        self._look_for_agents()
        awake = PeriodicCallback(self._now_and_then, AWAKE_EVERY_MS)
        scheduler.periodic_callbacks[NAME] = awake  # stopped with the scheduler
        awake.start()
        self._opened.set_result(None)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """A worker came; it counts once its agent has spoken."""
        if self._dispatcher is not None:
            self._dispatcher.place()

    def remove_worker(self, scheduler: Scheduler, worker: str, *, stimulus_id: str, **kwargs: Any) -> None:
        """A worker left, with its rank."""
        if self._dispatcher is not None:
            self._probed.pop(worker, None)
            self._dispatcher.worker_lost(worker)

    def valid_workers_downscaling(
        self, scheduler: Scheduler, workers: list[WorkerState]
    ) -> list[WorkerState]:
        """Workers with a rank stay, and while a run waits for workers all do."""
        dispatcher = self._dispatcher
        if dispatcher is None:
            return workers
        if dispatcher.is_waiting:
            return []
        return [w for w in workers if dispatcher.holder(w.address) is None]

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A client left: from now on the cluster may be idle."""
        if self._dispatcher is not None and _is_somebody(client):
            self._client_left = time.monotonic()

    async def before_close(self) -> None:
        """End the runs while their agents can still be reached."""
        if self._dispatcher is not None:
            await self._dispatcher.end_all("the cluster was stopped", FAREWELL_S)

    async def close(self) -> None:
        """Write the journal to its end. Twice does nothing."""
        dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is None:
            return
        self._acknowledgements.close()
        await dispatcher.close()
        await asyncio.get_running_loop().run_in_executor(self._threads, self._journal.close)
        self._threads.shutdown(wait=False)

    # Calls from clients

    async def train_hello(self) -> dict[str, Any]:
        """Who this is, and what is going on: also the way to tell whether a controller is there at all."""
        dispatcher = await self._ready()
        self._look_for_agents()
        clients = sum(1 for c in self._scheduler.clients if _is_somebody(c))
        is_idle = not clients and not dispatcher.active
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "controller": self.id,
            "journal": str(self._journal.path),
            "home": str(home()),
            "hostname": socket.gethostname(),
            "boot_id": self._boot,
            "workers": [
                {
                    "address": address,
                    "name": str(state.name),
                    "host": state.host,
                    "nthreads": state.nthreads,
                    "agent": address in dispatcher.agents,
                    "ready": dispatcher.agents.get(address, False),
                    "run": dispatcher.holder(address),
                }
                for address, state in sorted(
                    self._scheduler.workers.items(), key=lambda item: natural_order(str(item[1].name))
                )
            ],
            "runs": [
                {"run_id": r.spec.run_id, "state": str(r.machine.state), "name": r.spec.name}
                for r in dispatcher.active
            ],
            "unread": self._readers.unread(dispatcher.runs.values()),
            "clients": clients,
            "idle_since": time.monotonic() - max(self._client_left, dispatcher.last_end) if is_idle else None,
        }

    async def train_submit(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Take a run in; idempotent by its id."""
        dispatcher = await self._ready()
        try:
            run = dispatcher.submit(RunSpec.from_dict(spec))
        except (TrainError, ValueError, TypeError) as error:
            return _refused(error)
        return {"run_id": run.spec.run_id, "state": str(run.machine.state)}

    async def train_events(self, run_id: str, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]:
        """Events numbered above ``after``; waits up to ``wait_s`` seconds for the first one."""
        dispatcher = await self._ready()
        try:
            run = dispatcher.run(run_id)
            until = time.monotonic() + min(wait_s, LONGEST_WAIT_S)
            while True:
                events, last = await self._events(run, after)
                is_all = run.machine.is_over and last >= run.log.last
                left_s = until - time.monotonic()
                if events or is_all or left_s <= 0 or not dispatcher.is_open:
                    return {"events": events, "last": last, "terminal": is_all}
                await run.changed(left_s)
        except TrainError as error:
            return _refused(error)

    async def train_journal(self, after: Mapping[str, int], reads_file: bool = False) -> dict[str, Any]:
        """What a reader lacks that has the runs up to the numbers in ``after`` on its own disk.

        ``reads_file``: it reads the journal itself, and needs no copy.
        """
        dispatcher = await self._ready()
        answer = await self._readers.answer(list(dispatcher.runs.values()), after, reads_file=reads_file)
        return {"mark": asdict(this_process(self.id, __version__, this_moment())), **answer}

    async def train_stop(self, run_id: str, force: bool = False, reason: str = "") -> dict[str, Any]:
        """Have a run end; its state as of now comes back."""
        dispatcher = await self._ready()
        try:
            run = dispatcher.stop(run_id, force=force, reason=reason)
        except TrainError as error:
            return _refused(error)
        return {"state": str(run.machine.state)}

    # Messages from agents

    async def _on_events(
        self,
        worker: str,
        run_id: str = "",
        attempt: int = 0,
        events: Sequence[bytes] = (),
        size: int = 0,
        **_: Any,
    ) -> None:
        run = self._run_of(worker, run_id)
        if run is not None and self._dispatcher is not None:
            with _never_raising(worker):
                await self._dispatcher.relay(run, events)
        if size and self._dispatcher is not None:
            self._acknowledgements.add(worker, run_id=run_id, attempt=attempt, size=size)

    def _on_rank(
        self,
        *,
        worker: str,
        run_id: str = "",
        attempt: int = 0,
        rank: int = -1,
        status: str = "",
        cause: Mapping[str, Any] | None = None,
        on: int = -1,
        hung: str = "",
        **_: Any,
    ) -> None:
        run = self._run_of(worker, run_id)
        if run is not None and self._dispatcher is not None:
            with _never_raising(worker):
                if status == "ready":
                    self._dispatcher.feed(run, RankReady(attempt=attempt, rank=rank))
                elif status == "exited":
                    told = _cause(cause or {})
                    self._dispatcher.feed(run, RankExited(attempt=attempt, rank=rank, cause=told))
                elif status == "waits":
                    self._dispatcher.rank_waits(run, attempt, on=int(on), hung=str(hung))

    def _on_agent(self, worker: str, ready: bool = False, **_: Any) -> None:
        if self._dispatcher is not None:
            with _never_raising(worker):
                self._dispatcher.agent_seen(worker, bool(ready))

    # Tools

    async def _ready(self) -> Dispatcher:
        await asyncio.shield(self._opened)
        if self._dispatcher is None:
            raise RuntimeError("the scheduler is closing")
        return self._dispatcher

    def _run_of(self, worker: str, run_id: str) -> LiveRun | None:
        run = self._dispatcher.runs.get(run_id) if self._dispatcher is not None else None
        if run is None:
            logger.warning("worker %s speaks of run %s, which is not known here", worker, run_id)
        return run

    async def _events(self, run: LiveRun, after: int) -> tuple[list[bytes], int]:
        """Packed events above ``after`` and the number of the last one of them."""
        events = run.log.after(after, at_most_bytes=REPLY_BYTES)
        if events is not None:
            return events, min(max(after, 0) + len(events), run.log.last)
        run_id, loop = run.spec.run_id, asyncio.get_running_loop()
        for _ in range(_COMMIT_TRIES):
            events = await loop.run_in_executor(self._threads, self._read_journal, run_id, after)
            if events:
                return events, unpack_event(events[-1]).seq
            if self._journal.committed(run_id) >= run.log.first - 1:
                break
            await asyncio.sleep(0.05)
        # The journal had to leave them out, since its disk was full: go on with what is in memory.
        before = run.log.first - 1
        events = run.log.after(before, at_most_bytes=REPLY_BYTES) or []
        return events, before + len(events)

    def _read_journal(self, run_id: str, after: int) -> list[bytes]:
        return JournalReader(self._journal.path).packed(run_id, after, at_most_bytes=REPLY_BYTES)

    def _look_for_agents(self) -> None:
        """Ask workers whose agent should be there and has not spoken: its message may have been lost."""
        dispatcher = self._dispatcher
        if dispatcher is None or AGENT not in self._scheduler.worker_plugins:
            return
        now = time.monotonic()
        for worker in self._scheduler.workers:
            if worker not in dispatcher.agents and now - self._probed.get(worker, 0.0) > PROBE_EVERY_S:
                self._probed[worker] = now
                dispatcher.probe(worker)

    def _now_and_then(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.look_at_clock()
        self._stay_awake()

    def _stay_awake(self) -> None:
        """Keep the scheduler's idle time-out away from runs, which have no tasks while they wait, and from what nobody has read."""
        dispatcher = self._dispatcher
        if dispatcher is not None and (
            dispatcher.active or self._readers.are_waited_for(dispatcher.runs.values(), dispatcher.last_end)
        ):
            self._scheduler.idle_since = None

    def _refuse_from_now_on(self) -> None:
        for name in _HANDLERS:
            self._scheduler.handlers.pop(name, None)
        for op in _STREAM_HANDLERS:
            self._scheduler.stream_handlers.pop(op, None)
        self._threads.shutdown(wait=False)


@contextmanager
def _never_raising(worker: str) -> Iterator[None]:
    try:
        yield
    except Exception:  # whatever a worker sends, Dask would close its connection over it
        logger.exception("a message from worker %s could not be handled", worker)


def _cause(told: Mapping[str, Any]) -> ExitCause:
    return ExitCause(
        kind=str(told.get("kind") or "exit"),
        signal=int(told.get("signal") or 0),
        code=int(told.get("code") or 0),
        text=str(told.get("text") or ""),
        out_of_memory=told.get("out_of_memory"),
        whole=whole_loops(told.get("whole")),
    )


def _refused(error: Exception) -> dict[str, Any]:
    return {"error": {"type": type(error).__name__, "message": str(error)}}


def _is_somebody(client: str) -> bool:
    """Whether ``client`` is more than the cluster's own: not a worker's, not the supervisor's, not Dask's own."""
    return client.startswith("Client-") and not client.startswith(_OWN_CLIENTS)


def _open_journal(controller: str) -> JournalWriter:
    folder = journals_folder()
    try:
        return JournalWriter(private_folder(folder) / f"{controller}.sqlite")
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise StoreError(
            f"the cluster cannot keep the history of runs in {folder} on {socket.gethostname()}: {why}. Make room there, "
            "or start its scheduler with JUPYTER_TRAIN_HOME set to a folder that can be written."
        ) from error
