"""The agent: a Dask worker plugin that launches rank processes, relays what they tell, and ends them.

Everything here runs in the worker's event loop and does not block it. The
controller speaks to it by worker RPC (``train_…``), it answers on the worker's
stream to the scheduler: ``train-agent``, ``train-rank``, ``train-events``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import sys
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from distributed import WorkerPlugin
from distributed.core import Status

from jupyter_train import home
from jupyter_train.record import EventKind
from jupyter_train.record.proof import unchecked
from jupyter_train.runtime.channel import Cause
from jupyter_train.runtime.checkpoint.fetching import fetch_missing
from jupyter_train.runtime.checkpoint.shelf import remove_halves
from jupyter_train.runtime.device import device_index
from jupyter_train.runtime.environment import THREAD_VARIABLES
from jupyter_train.runtime.escalation import Mode
from jupyter_train.runtime.job import Job
from jupyter_train.runtime.launcher import Launcher, new_launcher
from jupyter_train.runtime.lease import Leases
from jupyter_train.runtime.link import RankLink
from jupyter_train.runtime.processes import kill_group, kill_marked
from jupyter_train.runtime.proof.keeper import Keeper, too_little_memory
from jupyter_train.runtime.relay import Relay
from jupyter_train.runtime.sharedmemory import forget_names
from jupyter_train.runtime.spool import read_spools, spool_name
from jupyter_train.runtime.tidying import Tidying
from jupyter_train.runtime.usage import Reading, UsageSampler

logger = logging.getLogger(__name__)

NAME = "jupyter-train-agent"
RENDEZVOUS_KEPT_S = 120.0  #: a socket that no launch has taken is closed after this long
SPOOL_KEPT_S = 10.0  #: after the rank's end: by then the scheduler has its events
ARTIFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

REPLACED_WITHIN_S = 1.0

Attempt = tuple[str, int]  #: run id, attempt

#: Offices whose plugin was removed from a running worker, until another takes them over or their time is up.
_LEFT: WeakKeyDictionary[Any, tuple[asyncio.TimerHandle, Office]] = WeakKeyDictionary()


class Agent(WorkerPlugin):  # type: ignore[misc]
    """Register with ``client.register_plugin(Agent())``; a second registration changes nothing."""

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self._office: Office | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_office": None}

    def setup(self, worker: Any) -> None:
        """Called by the worker in its event loop: start the zygote, answer the controller.

        A worker that joins just while the plugin is registered gets it twice: Dask then takes the first
        one away, which may have ranks already. The second goes on with what the first had.
        """
        if (left := _LEFT.pop(worker, None)) is not None:
            closing, self._office = left
            closing.cancel()
            return
        self._office = Office(worker)
        worker.handlers.update(self._office.handlers)
        worker.stream_handlers["train-ack"] = self._office.acknowledged
        self._office.open()

    async def teardown(self, worker: Any) -> None:
        """Called by the worker at its end: every rank and the zygote go with it."""
        office, self._office = self._office, None
        if office is None:
            return
        if worker.status in (Status.init, Status.running, Status.paused):
            closing = asyncio.get_running_loop().call_later(
                REPLACED_WITHIN_S, lambda: office._spawn(_retire(worker, office))
            )
            _LEFT[worker] = (closing, office)
        else:
            await _retire(worker, office)


async def _retire(worker: Any, office: Office) -> None:
    _LEFT.pop(worker, None)
    for name in office.handlers:
        worker.handlers.pop(name, None)
    # One may be on its way, and Dask drops the connection over a message that nobody handles.
    worker.stream_handlers["train-ack"] = _nothing
    await office.close()


class Office:
    """What an agent does for one worker."""

    def __init__(self, worker: Any, *, launcher: Launcher | None = None) -> None:
        self._worker = worker
        self._launcher: Launcher = launcher or new_launcher(self)
        self._links: dict[str, RankLink] = {}
        self._relays: dict[Attempt, Relay] = {}
        self._rendezvous: dict[Attempt, socket.socket] = {}
        self._shadows: dict[Attempt, Keeper] = {}
        self._leases = Leases(worker)
        self._usage = UsageSampler(self._usage_read)
        self._tidying = Tidying(self._needed_content)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.handlers = {
            "train_rendezvous": self.rendezvous,
            "train_launch": self.launch,
            "train_stop_ranks": self.stop_ranks,
            "train_stacks": self.stacks,
            "train_content_missing": self.content_missing,
            "train_content_put": self.content_put,
            "train_artifact_get": self.artifact_get,
            "train_spool": self.spool,
        }

    def open(self) -> None:
        """Start the zygote; the controller is told when it is ready."""
        self._worker.batched_send({"op": "train-agent", "ready": False})
        self._launcher.start()
        self._tidying.start()

    async def close(self) -> None:
        """End every rank, the zygote and the leases."""
        for link in list(self._links.values()):
            link.end("kill")
        for shadow in list(self._shadows.values()):
            shadow.end()
        await self._launcher.close()
        for shadow in list(self._shadows.values()):
            shadow.lost()
        for link in list(self._links.values()):
            link.lost("its worker is closing")
        self._usage.close()
        for held in self._rendezvous.values():
            held.close()
        self._rendezvous.clear()
        await self._leases.close()
        await self._tidying.close()

    # RPC handlers: plain values in, plain values out

    async def rendezvous(self, *, run_id: str, attempt: int, host_visible: bool) -> dict[str, Any]:
        """Bind and listen where the run's ranks will meet; rank 0 is launched here and gets the socket."""
        host = self._host() if host_visible else "127.0.0.1"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.bind((host, 0))
        listening.listen(1024)
        self._forget_rendezvous((run_id, attempt))
        self._rendezvous[run_id, attempt] = listening
        self._loop.call_later(RENDEZVOUS_KEPT_S, self._forget_rendezvous, (run_id, attempt), listening)
        return {"host": host, "port": listening.getsockname()[1]}

    async def launch(
        self,
        *,
        run_id: str,
        attempt: int,
        spec: Mapping[str, Any],
        ranks: list[list[int]],
        world_size: int,
        local_world_size: int,
        master_host: str,
        master_port: int,
    ) -> dict[str, Any]:
        """Fork ranks, all or none; gives their process ids. Asked twice for the same, it answers the same."""
        if known := {link.job.rank: link.pid for link in self._of((run_id, attempt)) if link.pid}:
            return {"pids": known}
        listening = self._rendezvous.pop((run_id, attempt), None)
        if listening is None and master_port and any(rank == 0 for rank, _ in ranks):
            # Its ranks would try for two minutes to reach a port that nobody listens on.
            message = (
                f"the agent on {self._worker.address} was started anew and no longer holds the run's port"
            )
            return {"error": {"type": "RunFailed", "message": message}}
        self._relays[run_id, attempt] = Relay(self._worker.batched_send, run_id=run_id, attempt=attempt)
        cores = _cores()
        links = []
        for place, (rank, local_rank) in enumerate(ranks):
            job = Job(
                spec=dict(spec),
                attempt=attempt,
                rank=rank,
                local_rank=local_rank,
                world_size=world_size,
                local_world_size=local_world_size,
                master_host=master_host,
                master_port=master_port,
                home=str(home.home()),
                worker=self._worker.address,
                cores=cores,
                device_index=device_index(
                    os.environ, rotated="dask_cuda" in sys.modules, local_rank=local_rank, place=place
                ),
                unset=nanny_variables(os.environ),
            )
            relay = self._relays[run_id, attempt]
            links.append(RankLink(job, launcher=self._launcher, relay=relay, owner=self))
        for link in links:
            self._links[link.key] = link
        await fetch_missing(
            spec.get("resume"),
            [rank for rank, _ in ranks],
            root=home.home(),
            agent=self._worker.rpc,
        )
        fd = listening.fileno() if listening is not None else None
        outcomes = await asyncio.gather(
            *(link.launch(fd if link.job.rank == 0 else None) for link in links), return_exceptions=True
        )
        if listening is not None:
            listening.close()
        if errors := [outcome for outcome in outcomes if isinstance(outcome, BaseException)]:
            for link in links:
                if link.pid:
                    link.end("kill")
                else:
                    self._links.pop(link.key, None)
            return {"error": {"type": type(errors[0]).__name__, "message": str(errors[0])}}
        for link in links:
            if not link.ended:
                self._usage.watch(link.pid)
                self._leases.take(lease_key(link, self._worker.address))
        return {"pids": {link.job.rank: link.pid for link in links}}

    async def stop_ranks(self, *, run_id: str, attempt: int, mode: Mode) -> None:
        """Begin to end this agent's ranks of an attempt; their exits tell when it is done."""
        if shadow := self._shadows.get((run_id, attempt)):
            shadow.end()
        for link in self._of((run_id, attempt)):
            link.end(mode)

    async def stacks(self, *, run_id: str, attempt: int, short: bool = False) -> dict[str, Any]:
        """Put the Python stacks of this agent's ranks of an attempt on record; gives them by rank.

        They are taken from outside, in half a second at most each, whatever the rank is doing.
        """
        links = self._of((run_id, attempt))
        texts = await asyncio.gather(*(link.stacks(short=short) for link in links))
        told = {link.job.rank: text for link, text in zip(links, texts, strict=True) if text}
        relay = self._relays.get((run_id, attempt))
        for link in links:
            if relay is not None and (text := told.get(link.job.rank)):
                head = f"What rank {link.job.rank} is doing:\n"
                payload = {"stream": "stacks", "text": f"{head}{text}\n"}
                relay.add([link.event(EventKind.LOG, payload)], urgent=True)
        return {"stacks": told}

    async def content_missing(self, *, keys: list[str]) -> dict[str, Any]:
        """Which captured data this host does not have, and the id of the folder that it would lie in."""
        content = self._content()
        return {"folder": content.folder_id(), "missing": content.missing(keys)}

    async def content_put(self, *, key: str, offset: int, total: int, data: Any) -> None:
        """One chunk of captured data."""
        await self._loop.run_in_executor(None, self._content().receive, key, offset, total, data)

    async def artifact_get(self, *, run_id: str, name: str, offset: int, length: int) -> dict[str, Any]:
        """A part of a file in a run's folder, and how long the file is.

        Raises:
            ValueError: that is not the name of a file of a run.
            FileNotFoundError: the run has no such file on this host.
        """
        if not ARTIFACT.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an artifact")
        path = home.run_folder(run_id) / name
        return await self._loop.run_in_executor(None, _read_part, path, offset, length)

    async def spool(self, *, run_id: str, attempt: int) -> dict[str, Any]:
        """The events that an attempt's ranks on this host, perhaps another worker's, left on disk."""
        folder = home.run_folder(run_id)
        return {"events": await self._loop.run_in_executor(None, read_spools, folder, attempt)}

    # What the controller tells

    def acknowledged(self, *, run_id: str = "", attempt: int = 0, size: int = 0, **_: Any) -> None:
        """The controller has taken in events of an attempt, ``size`` bytes of them."""
        if relay := self._relays.get((run_id, attempt)):
            relay.acknowledged(size)

    # What the launcher tells

    def launcher_ready(self, ready: bool) -> None:
        """See `jupyter_train.runtime.launcher.Listener`."""
        self._worker.batched_send({"op": "train-agent", "ready": ready})

    def rank_exited(self, key: str, status: int) -> None:
        """See `jupyter_train.runtime.launcher.Listener`."""
        if link := self._links.get(key):
            link.exited(status)
        for shadow in [one for one in self._shadows.values() if one.key == key]:
            shadow.exited(status)

    def ranks_lost(self, text: str) -> None:
        """See `jupyter_train.runtime.launcher.Listener`."""
        for link in list(self._links.values()):
            if link.pid:  # who is not launched yet waits for the next zygote, or is told by the launcher
                kill_group(link.pid)
                self._spawn(self._bury(link, text))
        for shadow in list(self._shadows.values()):
            if shadow.pid:
                kill_group(shadow.pid)
                shadow.lost()

    # What the links tell

    def rank_ready(self, link: RankLink) -> None:
        """See `jupyter_train.runtime.link.Owner`."""
        self._say(link, "ready")

    def rank_waits(self, link: RankLink, on: int, hung: str) -> None:
        """See `jupyter_train.runtime.link.Owner`."""
        self._say(link, "waits", on=on, hung=hung)

    def rank_ended(self, link: RankLink, cause: Cause) -> None:
        """See `jupyter_train.runtime.link.Owner`."""
        self._links.pop(link.key, None)
        self._usage.forget(link.pid)
        self._leases.release(lease_key(link, self._worker.address))
        attempt = (link.job.spec["run_id"], link.job.attempt)
        shadow = self._shadows.get(attempt)
        if shadow is None or link.job.rank:
            self._gone(link, cause)
        else:
            if cause.kind != "done":
                shadow.end()
            shadow.when_gone(self._loop.time() - link.began, lambda: self._gone(link, cause))
        spool = link.job.folder / spool_name(link.job.attempt, link.job.rank)
        self._loop.call_later(SPOOL_KEPT_S, _remove, spool)
        forget_names(*attempt)
        if cause.kind != "done":
            left = partial(remove_halves, link.job.folder, attempt=link.job.attempt, rank=link.job.rank)
            self._loop.run_in_executor(None, left)

    def _gone(self, link: RankLink, cause: Cause) -> None:
        """Nothing of that rank will follow."""
        self._say(link, "exited", cause=cause.to_dict())
        attempt = (link.job.spec["run_id"], link.job.attempt)
        if not self._of(attempt) and attempt not in self._shadows:
            self._relays.pop(attempt, None)

    def proof_wanted(self, link: RankLink, told: Mapping[str, Any]) -> None:
        """See `jupyter_train.runtime.link.Owner`."""
        attempt = (link.job.spec["run_id"], link.job.attempt)
        if "proof" in told:
            if shadow := self._shadows.get(attempt):
                shadow.end()
            self._tell_proof(link, told["proof"])
            return
        if attempt in self._shadows:
            return
        if why := too_little_memory(link.pid):
            self._tell_proof(link, unchecked(why).to_payload())
            return
        shadow = self._shadows[attempt] = Keeper(
            link.job,
            launcher=self._launcher,
            tell=lambda payload: self._tell_proof(link, payload),
            gone=lambda _: self._shadow_gone(attempt),
        )
        shadow.start(first=int(told["first"]), took_s=float(told["took_s"]), began=float(told["began"]))

    def _shadow_gone(self, attempt: Attempt) -> None:
        self._shadows.pop(attempt, None)
        if not self._of(attempt):
            self._loop.call_soon(self._relays.pop, attempt, None)

    def _tell_proof(self, link: RankLink, payload: Mapping[str, Any]) -> None:
        if relay := self._relays.get((link.job.spec["run_id"], link.job.attempt)):
            relay.add([link.event(EventKind.LOG, payload)], urgent=True)

    async def _bury(self, link: RankLink, text: str) -> None:
        await self._loop.run_in_executor(None, partial(kill_marked, link.job.marks, pid=link.pid))
        link.lost(text)

    def _usage_read(self, readings: Mapping[int, Reading]) -> None:
        """Called in the sampler's thread."""
        self._loop.call_soon_threadsafe(self._pass_usage_on, readings)

    def _pass_usage_on(self, readings: Mapping[int, Reading]) -> None:
        for link in self._links.values():
            reading = readings.get(link.pid)
            relay = self._relays.get((link.job.spec["run_id"], link.job.attempt))
            if reading is not None and relay is not None:
                payload = {
                    "cpu_cores": reading.cpu_cores,
                    "memory_bytes": reading.memory_bytes,
                    "worker": self._worker.address,
                }
                relay.add([link.event(EventKind.USAGE, payload)])

    def _say(self, link: RankLink, status: str, **more: Any) -> None:
        self._worker.batched_send(
            {
                "op": "train-rank",
                "run_id": link.job.spec["run_id"],
                "attempt": link.job.attempt,
                "rank": link.job.rank,
                "status": status,
                **more,
            }
        )

    def _of(self, attempt: Attempt) -> list[RankLink]:
        return [
            link for link in self._links.values() if (link.job.spec["run_id"], link.job.attempt) == attempt
        ]

    def _forget_rendezvous(self, attempt: Attempt, only: socket.socket | None = None) -> None:
        held = self._rendezvous.get(attempt)
        if held is not None and only in (None, held):
            del self._rendezvous[attempt]
            held.close()

    def _needed_content(self) -> set[str]:
        return {ref["key"] for link in self._links.values() for ref in link.job.spec.get("capture", ())}

    def _content(self) -> Any:
        from jupyter_train.transport.content import ContentStore

        return ContentStore(home.content_folder())

    def _host(self) -> str:
        from distributed.comm import get_address_host

        return str(get_address_host(self._worker.address))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def lease_key(link: RankLink, worker: str) -> str:
    """Name of a rank's lease task; Dask shows what stands before the last dash as the task's kind."""
    return f"train-{link.job.spec['name']}-{link.key}@{worker}"


def nanny_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that Dask's Nanny set for its worker and that a notebook would not have."""
    import dask

    defaults = dask.config.get("distributed.nanny.pre-spawn-environ", default={}) or {}
    return tuple(
        name for name in THREAD_VARIABLES if name in defaults and environ.get(name) == str(defaults[name])
    )


def _cores() -> int:
    from dask.system import CPU_COUNT

    return max(1, int(CPU_COUNT))


def _read_part(path: Path, offset: int, length: int) -> dict[str, Any]:
    with path.open("rb") as file:
        file.seek(offset)
        return {"data": file.read(length), "total": os.fstat(file.fileno()).st_size}


def _nothing(**_: Any) -> None:
    pass


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
