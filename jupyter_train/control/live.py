"""What the controller holds of one run in memory, and how its events look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from jupyter_train.control.again import keeps_checkpoints
from jupyter_train.control.crash import crash_frames
from jupyter_train.control.eventlog import EventLog
from jupyter_train.control.machine import RunMachine
from jupyter_train.control.messages import Announce, Report, Timer
from jupyter_train.record import Event, EventKind, RunSpec


class LiveRun:
    """One run: what was asked for, where it stands, what it has told. Belongs to the scheduler's event loop."""

    def __init__(self, spec: RunSpec, clock: Callable[[], float]) -> None:
        self.spec = spec
        self._clock = clock  #: unix time
        self.machine = RunMachine(
            run_id=spec.run_id,
            ranks=spec.ranks,
            timeout_s=spec.timeout_s,
            retries=spec.retries,
            whole=spec.whole,
            resume=spec.resume,
            keeps=keeps_checkpoints(spec),
        )
        self.log = EventLog(spec.run_id)
        self.timers: dict[Timer, asyncio.TimerHandle] = {}
        self.knows_trouble = False  #: its log says that the journal cannot be written
        self.set_back_s = 0.0  #: its log says that the machine's clock was set back by so much
        self._changed = asyncio.Event()

    def forget(self) -> None:
        """It is over, and has been for a while: keep no more than tells that it was here. The journal has the rest."""
        self.log.forget()
        spec = self.spec
        self.spec = RunSpec(
            run_id=spec.run_id, name=spec.name, source="", ranks=spec.ranks, cluster=spec.cluster
        )

    def notify(self) -> None:
        """Wake everybody who waits for an event of this run."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, within_s: float) -> bool:
        """Wait for the next event; False if none came."""
        try:
            await asyncio.wait_for(self._changed.wait(), within_s)
        except TimeoutError:
            return False
        return True

    def cancel_timers(self) -> None:
        """No timer of this run rings any more."""
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()

    def state_event(self, told: Announce) -> Event:
        """The event of a new state; the first one carries the specification."""
        payload: dict[str, Any] = {"state": str(told.state)}
        if told.reason:
            payload["reason"] = told.reason
        if not self.log.last:
            payload["spec"] = self.spec.to_dict(for_journal=True)
        if told.queue_place:
            payload["queue_place"] = told.queue_place
        if told.places:
            payload["placement"] = [
                {"rank": p.rank, "local_rank": p.local_rank, "worker": p.worker, "host": p.host}
                for p in told.places
            ]
        if told.whole:
            payload["whole"] = [asdict(one) for one in told.whole]
        if told.resume is not None:
            payload["resume"] = asdict(told.resume)
        return self._event(EventKind.STATE, None, payload)

    def error_event(self, told: Report) -> Event:
        """The event of an error that no rank could tell itself."""
        return self._event(
            EventKind.ERROR,
            told.rank,
            {
                "type": told.type,
                "module": "jupyter_train.errors" if told.cause != "launch" else "",
                "message": told.message,
                "frames": crash_frames(told.text),
                "text": f"{told.type}: {told.message}" + (f"\n\n{told.text}" if told.text else ""),
                "secondary": False,
                "cause": told.cause,
            },
        )

    def remark_event(self, text: str) -> Event:
        """The event of a remark by the controller."""
        return self._event(EventKind.LOG, None, {"stream": "remark", "text": text})

    def _event(self, kind: EventKind, rank: int | None, payload: dict[str, Any]) -> Event:
        return Event(
            run_id=self.spec.run_id,
            attempt=self.machine.attempt,
            rank=rank,
            time=self._clock(),
            kind=kind,
            payload=payload,
        )
