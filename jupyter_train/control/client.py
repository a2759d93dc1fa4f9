"""The kernel's way to the controller: plain calls from any thread, over the Dask client's own connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_train import errors
from jupyter_train._version import __version__
from jupyter_train.control.sending import lacking, send_all
from jupyter_train.errors import ClusterError, ClusterUnreachable, EnvironmentMismatch, RunError, TrainError
from jupyter_train.record import RunSpec

if TYPE_CHECKING:
    from distributed import Client, WorkerPlugin

PROTOCOL = 1
ANSWER_S = 30.0  #: a scheduler that is silent for longer is not there
CHUNK_BYTES = 4 * 2**20
AGENTS_S = 60.0
JOINING_S = 10.0  #: within which a worker that has joined has its agent
JOINING_PAUSE_S = 0.05

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, now and then."""


class ControllerClient:
    """The controller of the cluster that ``client`` is connected to.

    Every method may be called from any thread but the client's own event loop,
    and a KeyboardInterrupt ends its wait. All of them raise ClusterUnreachable
    where nothing answers, and the controller's own errors as what they are.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def hello(self) -> dict[str, Any]:
        """Who the controller is, and its workers, active runs and clients; see docs/states.md."""
        return self._call("train_hello")

    def submit(self, spec: RunSpec) -> dict[str, Any]:
        """Hand a run in: ``{"run_id", "state"}``. Twice is once, so it may be repeated after a lost answer.

        Raises:
            NotEnoughWorkers: the run needs more workers than the cluster has.
        """
        return self._call("train_submit", spec=spec.to_dict())

    def events(self, run_id: str, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]:
        """``{"events": packed bytes, "last": their last number, "terminal": nothing will follow}``.

        Waits up to ``wait_s`` seconds for the first event numbered above ``after``.

        Raises:
            RunNotFound: this controller never had the run; the store may have it.
        """
        reply = self._call("train_events", wait_s + ANSWER_S, run_id=run_id, after=after, wait_s=wait_s)
        reply["events"] = list(reply["events"])
        return reply

    def stop(self, run_id: str, force: bool = False, reason: str = "") -> str:
        """Have a run end; its state as of now. A second call kills the ranks, as ``force`` does at once.

        Raises:
            RunNotFound: this controller never had the run.
        """
        return str(self._call("train_stop", run_id=run_id, force=force, reason=reason)["state"])

    def journal(self, after: Mapping[str, int], *, reads_file: bool = False) -> dict[str, Any]:
        """What the controller's journal has above the numbers in ``after``, by run; see ``train_journal`` in docs/states.md.

        It takes ``after`` as what is on the caller's disk, and its cluster may end once that is everything.
        """
        return self._call("train_journal", after=dict(after), reads_file=reads_file)

    def fetch(
        self,
        run_id: str,
        name: str,
        worker: str,
        path: Path,
        *,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Copy file ``name`` of a run's folder on ``worker`` to ``path``; its size in bytes.

        ``path`` appears once it is whole. Where that worker is gone, another one
        on its host is asked, since they share the folder. Of a longer file than
        ``limit`` bytes only so many are copied.

        Raises:
            RunError: there is no such file, it changed under way, or nobody on that host is left.
        """
        worker = self._beside(worker)
        part = path.with_name(path.name + ".part")
        done, total = 0, 1
        try:
            with part.open("wb") as file:
                while done < total:
                    reply = self._ask_agent(
                        worker,
                        "train_artifact_get",
                        run_id=run_id,
                        name=name,
                        offset=done,
                        length=CHUNK_BYTES if limit is None else min(CHUNK_BYTES, max(limit - done, 1)),
                    )
                    total = int(reply["total"]) if limit is None else min(int(reply["total"]), limit)
                    if not reply["data"] and done < total:
                        raise RunError(f"{name} of run {run_id} became shorter while it was fetched")
                    done += file.write(reply["data"])
                    if progress is not None:
                        progress(done, total)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return done

    def send(
        self,
        files: Mapping[str, Path],
        workers: Sequence[str] | None = None,
        *,
        folder: str = "",
        progress: Progress | None = None,
    ) -> int:
        """Copy content (by its key) to where all ``workers`` (default: every one) find it; bytes that had to travel.

        Workers with one folder between them get one copy, those that use ``folder`` none.

        Raises:
            ClusterError: an agent cannot keep it, or there is none.
        """
        lacks = lacking(self._missing(list(files), workers), folder=folder)
        total = sum(files[key].stat().st_size for lack in lacks for key in lack.keys)
        sent = 0

        def count(size: int) -> None:
            nonlocal sent
            sent += size
            if progress is not None:
                progress(sent, total)

        if lacks:
            where = ", ".join(lack.worker for lack in lacks)
            try:
                self._sync(partial(send_all, self.client, lacks, files, relay=self._relayed, count=count))
            except (TrainError, OSError, TimeoutError):
                raise
            except Exception as error:  # the agent's own exception arrives as a bare Exception with its text
                raise ClusterError(f"captured data cannot be kept on worker {where}: {error}") from error
        return sent

    def missing(self, keys: Sequence[str]) -> set[str]:
        """Those of ``keys`` that some worker does not have.

        Raises:
            ClusterError: a worker has no agent, or its agent failed.
        """
        return {key for answer in self._missing(keys).values() for key in answer["missing"]}

    def _missing(
        self, keys: Sequence[str], workers: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """What each worker lacks, and the id of its folder: asked all at once."""
        if workers is None:
            workers = [w["address"] for w in self.hello()["workers"]]
        if not workers:
            return {}
        msg = {"op": "train_content_missing", "keys": list(keys)}
        until = time.monotonic() + JOINING_S
        while True:
            replies = self._rpc(
                "broadcast", ANSWER_S, workers=list(workers), msg=msg, on_error="return_pickle"
            )
            # A worker that has just joined gets its agent in a moment.
            if all(reply is not None for reply in replies.values()) or time.monotonic() > until:
                break
            time.sleep(JOINING_PAUSE_S)
        return {
            worker: _agents_reply(worker, "train_content_missing", reply) for worker, reply in replies.items()
        }

    async def _relayed(self, worker: str, op: str, **arguments: Any) -> Any:
        msg = {"op": op, **arguments}
        call = self.client.scheduler.broadcast(workers=[worker], msg=msg, on_error="return_pickle")
        replies = await asyncio.wait_for(call, ANSWER_S)
        return _agents_reply(worker, op, replies[worker])

    def _beside(self, worker: str) -> str:
        """``worker``, or another one on its host where it has left the cluster."""
        present: dict[str, str] = {w["address"]: w["host"] for w in self.hello()["workers"]}
        if worker in present:
            return worker
        host = worker.rpartition("://")[2].rpartition(":")[0]
        for other, other_host in present.items():
            if other_host == host:
                return other
        raise RunError(f"the files of the run are on {host}, and no worker of the cluster is there any more")

    def _ask_agent(self, worker: str, op: str, **arguments: Any) -> Any:
        """Call an agent through the scheduler: the kernel may not be able to reach workers itself."""
        msg = {"op": op, **arguments}
        replies = self._rpc("broadcast", ANSWER_S, workers=[worker], msg=msg, on_error="return_pickle")
        return _agents_reply(worker, op, replies[worker])

    def _call(self, op: str, within_s: float = ANSWER_S, **arguments: Any) -> dict[str, Any]:
        reply = self._rpc(op, within_s, **arguments)
        if reply is None:  # Dask's answer to a name that nobody handles
            raise ClusterUnreachable(
                f"the scheduler at {self._address} has no controller of jupyter_train: it was started anew. "
                "Its runs are in  %train runs;  run the cell again to use it"
            )
        _raise_if_refused(reply)
        return dict(reply)

    def _rpc(self, op: str, within_s: float, **arguments: Any) -> Any:
        client = self.client

        async def call() -> Any:
            if client.scheduler is None:
                raise OSError("the client is closed")
            return await asyncio.wait_for(getattr(client.scheduler, op)(**arguments), within_s)

        return self._sync(call, within_s)

    def _sync(self, work: Callable[[], Any], within_s: float = ANSWER_S) -> Any:
        """Run ``work`` in the client's event loop and wait for it."""
        try:
            return self.client.sync(work, asynchronous=False)
        except TimeoutError:
            raise ClusterUnreachable(
                f"the scheduler at {self._address} did not answer within {within_s:g} s"
            ) from None
        except (OSError, RuntimeError) as error:
            raise ClusterUnreachable(
                f"the scheduler at {self._address} cannot be reached: {error or type(error).__name__}"
            ) from error

    @property
    def _address(self) -> str:
        scheduler = self.client.scheduler
        return str(scheduler.address) if scheduler is not None else "an address that is not known any more"


def ensure(client: Client, agent_plugin: WorkerPlugin, *, timeout_s: float = AGENTS_S) -> dict[str, Any]:
    """Have the controller in the scheduler and an agent on every worker; what ``hello`` then says.

    Idempotent, also when two kernels do it at the same moment. Returns once
    the agents of all present workers answer (their zygotes may still be warming up).

    Raises:
        EnvironmentMismatch: the scheduler cannot import jupyter_train, or has another version of it.
        ClusterUnreachable: the scheduler or some agents do not answer within ``timeout_s`` seconds.
    """
    from jupyter_train.control.controller import Controller

    control = ControllerClient(client)
    # The order matters: agents speak at once, and a scheduler closes the connection of a
    # worker whose message it does not know.
    _register(client, Controller())
    hello = control.hello()
    _check(hello)
    if not hello["workers"] or not _all_agents(hello):
        # Also where there are no workers yet: those that come get what is registered.
        _register(client, agent_plugin)
    until = time.monotonic() + timeout_s
    pause_s = 0.005
    while not _all_agents(hello := control.hello()):
        if time.monotonic() > until:
            silent = ", ".join(w["name"] for w in hello["workers"] if not w["agent"])
            raise ClusterUnreachable(
                f"no agent answers on worker {silent} of {control._address} after {timeout_s:g} s: see its log"
            )
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.2)
    return hello


def _all_agents(hello: Mapping[str, Any]) -> bool:
    return all(w["agent"] for w in hello["workers"])


def _register(client: Client, plugin: Any) -> None:
    where = client.scheduler.address
    try:
        replies = client.register_plugin(plugin) or {}
    except ImportError as error:
        raise EnvironmentMismatch(
            f"the scheduler at {where} cannot import jupyter_train ({error}): install jupyter_train {__version__} there"
        ) from error
    except OSError as error:
        raise ClusterUnreachable(f"{where} cannot be prepared for runs: {error}") from error
    for worker, reply in replies.items():
        if reply.get("status") == "error":
            problem = reply.get("exception_text") or reply.get("exception")
            raise ClusterError(f"the agent could not start on worker {worker}: {problem}")


def _check(hello: Mapping[str, Any]) -> None:
    if hello["protocol"] != PROTOCOL:
        raise EnvironmentMismatch(
            f"the cluster runs jupyter_train {hello['version']}, this notebook {__version__}, and they do not "
            "understand each other: install the same version in both and start the cluster again"
        )


def _agents_reply(worker: str, op: str, reply: Any) -> Any:
    """What the agent on ``worker`` answered, as Dask's ``broadcast`` brings it."""
    if isinstance(reply, bytes):
        from distributed.protocol.pickle import loads

        raise ClusterError(f"worker {worker} cannot do what it should ({op}): {loads(reply)}")
    if reply is None and op != "train_content_put":
        raise ClusterError(f"worker {worker} has no agent of jupyter_train")
    _raise_if_refused(reply)
    return reply


def _raise_if_refused(reply: Any) -> None:
    if isinstance(reply, Mapping) and isinstance(reply.get("error"), Mapping):
        told = reply["error"]
        kind = getattr(errors, str(told.get("type")), None)
        is_ours = isinstance(kind, type) and issubclass(kind, TrainError)
        raise (kind if is_ours else RunError)(str(told.get("message", "")))  # type: ignore[misc]
