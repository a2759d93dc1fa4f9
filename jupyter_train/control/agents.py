"""Calls to the agents on the workers. Their names and arguments are the whole of what the two sides share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jupyter_train.control.messages import Mode
from jupyter_train.control.placement import Place

if TYPE_CHECKING:
    from distributed import Scheduler

RENDEZVOUS_S = 30.0
LAUNCH_S = 120.0  #: a cold zygote imports torch first, on a busy machine for half a minute
ORDER_S = 10.0


class AgentError(Exception):
    """An agent could not do what it was asked, or did not answer."""

    def __init__(self, type: str, message: str, *, is_silence: bool = False) -> None:
        super().__init__(type, message)
        self.is_silence = is_silence  #: no answer came: its worker may be on its way out
        self.type = type
        self.message = message


class Agents:
    """The agents, by the addresses of their workers. All methods raise AgentError; called in the scheduler's loop."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def rendezvous(
        self, place: Place, *, run_id: str, attempt: int, host_visible: bool
    ) -> tuple[str, int]:
        """Host and port on which the agent now listens for the run's ranks."""
        reply = await self._call(
            place.worker,
            "train_rendezvous",
            RENDEZVOUS_S,
            run_id=run_id,
            attempt=attempt,
            host_visible=host_visible,
        )
        return str(reply["host"]), int(reply["port"])

    async def launch(
        self,
        place: Place,
        *,
        run_id: str,
        attempt: int,
        spec: dict[str, Any],
        world_size: int,
        master: tuple[str, int],
    ) -> None:
        """Have the rank of ``place`` forked."""
        await self._call(
            place.worker,
            "train_launch",
            LAUNCH_S,
            run_id=run_id,
            attempt=attempt,
            spec=spec,
            ranks=[[place.rank, place.local_rank]],
            world_size=world_size,
            local_world_size=place.local_world_size,
            master_host=master[0],
            master_port=master[1],
        )

    async def stop(self, worker: str, *, run_id: str, attempt: int, mode: Mode) -> None:
        """Have the run's rank on ``worker`` ended."""
        await self._call(worker, "train_stop_ranks", ORDER_S, run_id=run_id, attempt=attempt, mode=mode)

    async def spool(self, worker: str, *, run_id: str, attempt: int, within_s: float) -> Sequence[bytes]:
        """What the ranks of a dead worker left on the host of ``worker``."""
        reply = await self._call(worker, "train_spool", within_s, run_id=run_id, attempt=attempt)
        events: Sequence[bytes] = reply["events"]
        return events

    async def stacks(
        self, worker: str, *, run_id: str, attempt: int, short: bool, within_s: float
    ) -> dict[int, str]:
        """What the run's ranks on ``worker`` are doing, by rank: the stacks of their threads, which it puts on record.

        ``short``: the main thread's newest frames alone.
        """
        reply = await self._call(
            worker, "train_stacks", within_s, run_id=run_id, attempt=attempt, short=short
        )
        return {int(rank): str(text) for rank, text in reply["stacks"].items()}

    async def probe(self, worker: str) -> None:
        """Learn that there is an agent, and leave a warm connection to it."""
        await self._call(worker, "train_content_missing", ORDER_S, keys=[])

    async def _call(self, worker: str, op: str, within_s: float, **arguments: Any) -> Any:
        try:
            remote = getattr(self._scheduler.rpc(worker), op)
            reply = await asyncio.wait_for(remote(**arguments), within_s)
        except TimeoutError:
            message = f"worker {worker} did not answer within {within_s:g} s"
            raise AgentError("TimeoutError", message, is_silence=True) from None
        except OSError as error:
            raise AgentError(type(error).__name__, f"worker {worker}: {error}", is_silence=True) from error
        except Exception as error:  # the agent's own exception arrives as a bare Exception with its text
            raise AgentError("RunFailed", f"worker {worker}: {error}") from error
        if reply is None and op != "train_stop_ranks":  # Dask's answer to a name that nobody handles
            raise AgentError("RunFailed", f"worker {worker} has no agent of jupyter_train")
        if isinstance(reply, dict) and reply.get("error"):
            raise AgentError(
                str(reply["error"].get("type", "RunFailed")), str(reply["error"].get("message", ""))
            )
        return reply
