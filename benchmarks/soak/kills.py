"""Campaign: kill −9 of a rank, a zygote, a worker or a nanny, at random times of runs that may be retried."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import progress
from benchmarks.soak import cells, census, history, plan
from benchmarks.soak.interrupts import ended_as, state_of, wait_gone, wait_until
from benchmarks.soak.kernel import Act, Patient

if TYPE_CHECKING:
    from jupyter_train.record import Event

#: Of a local cluster. Its workers have no nannies but the supervisor: see ``plain`` for those of other clusters.
VICTIMS = ("rank", "zygote", "worker")
Find = Callable[[str], Sequence[int]]  #: the processes that are such a victim


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """One trial."""

    victim: str
    at_s: float  #: after the run was RUNNING
    was_over: bool  #: it had ended by itself before the kill
    state: str
    said: str  #: the cell's error, where it had one
    reason: str  #: why there was another attempt
    attempts: int
    detected_s: float | None  #: from the kill until the journal says RETRYING
    again_s: float | None  #: from the kill to the first step after it, on all ranks
    resumed_at: int | None  #: step of the checkpoint that the next attempt began from
    newest: int | None  #: step of the newest checkpoint that was whole when the attempt was given up
    done: int  #: steps done by then
    repeated: int  #: steps that were done again
    same_weights: bool
    complete: bool  #: each sample once per epoch, in the history that counts
    left: int  #: processes of the run
    load: float = 0.0  #: of the machine when it was killed


def campaign(
    kernel: Patient,
    count: int,
    *,
    epochs: int,
    pause_s: float,
    seed: int = 0,
    victims: tuple[str, ...] = VICTIMS,
    until: float = 0.97,
    find: Find | None = None,
    mend: Callable[[], None] = lambda: None,
) -> Iterator[Killed]:
    """``count`` trials; the kernel needs ``cells.SETUP``. First the run that all are compared with.

    They come in the first ``until`` of the time that that one takes. ``mend`` is called after each: to put back what nobody else does.
    """
    find = find or (lambda role: [p.pid for p in census.take(kernel.home).processes if p.role == role])
    begun = time.monotonic()
    folder = _emptied(kernel.home / "undisturbed")
    ended = kernel.go(cells.counted(name="undisturbed", folder=str(folder), epochs=epochs, pause_s=pause_s))
    if ended.error:
        raise RuntimeError(f"the run that all are compared with failed:\n{ended.said}")
    weights = kernel.run(cells.WEIGHTS).strip()
    length_s = time.monotonic() - begun
    if not history.ids_are_complete(history.read(folder), samples=cells.SAMPLES, epochs=epochs):
        raise RuntimeError("the run that all are compared with has not seen each sample once per epoch")
    drawn = plan.kills(count, victims, length_s=until * length_s, seed=seed)
    for number, one in enumerate(drawn):
        trial = _trial(kernel, one, number, find=find, epochs=epochs, pause_s=pause_s, weights=weights)
        mend()
        progress(
            f"kill {number + 1}/{count}: {trial.victim} at {trial.at_s:.2f} s: {trial.state}, "
            f"detected {_seconds(trial.detected_s)}, again {_seconds(trial.again_s)}, from step {trial.resumed_at} "
            f"of {trial.done}, {'same' if trial.same_weights else 'OTHER'} weights, "
            f"{'all' if trial.complete else 'NOT ALL'} samples; {trial.reason or trial.said[-300:]}"
        )
        yield trial


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def _emptied(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    return folder


def _trial(
    kernel: Patient, one: plan.Kill, number: int, *, find: Find, epochs: int, pause_s: float, weights: str
) -> Killed:
    from jupyter_train.store import Store

    name, folder = f"killed-{one.victim}-{number}", _emptied(kernel.home / "seen")
    times: list[float] = []
    loads: list[float] = []

    def kill() -> None:
        wait_until(lambda: state_of(kernel.home, name) == "RUNNING", 30)
        time.sleep(one.at_s)
        if state_of(kernel.home, name) != "RUNNING":
            return
        victims = sorted(find(one.victim))
        if not victims:
            return  # it ended meanwhile
        with contextlib.suppress(ProcessLookupError):
            os.kill(victims[int(one.choice * len(victims))], signal.SIGKILL)
            times.append(time.time())
            loads.append(os.getloadavg()[0])

    code = cells.counted(name=name, folder=str(folder), epochs=epochs, pause_s=pause_s)
    ended = kernel.go(code, [Act(at_s=0.05, do=kill)], timeout_s=300)
    state = ended_as(kernel.home, name)
    steps = history.read(folder)
    found = kernel.go(cells.WEIGHTS).text.strip()
    kernel.run("globals().pop('model', None)")
    store = Store(kernel.home)
    told = _told(store.events(store.find(name)))
    left, _ = wait_gone(kernel.home, 2.0)
    killed = times[0] if times else None
    later = [s for s in steps if killed is not None and s.attempt > 1]
    first = {s.rank: s.time for s in sorted(later, key=lambda s: s.time, reverse=True)}
    done = max((s.step for s in steps if s.attempt == 1), default=0)
    return Killed(
        victim=one.victim,
        at_s=one.at_s,
        was_over=killed is None or (told.retrying is None and state == "SUCCEEDED"),
        state=state,
        said=ended.said[-1000:],
        reason=told.reason,
        attempts=told.attempts,
        detected_s=told.retrying - killed if killed is not None and told.retrying is not None else None,
        again_s=max(first.values()) - killed if killed is not None and len(first) > 1 else None,
        resumed_at=told.resumed_at,
        newest=told.newest,
        done=done,
        repeated=sum(history.repeated(steps).values()),
        same_weights=found == weights,
        complete=history.ids_are_complete(history.that_counts(steps), samples=cells.SAMPLES, epochs=epochs),
        left=left,
        load=round(loads[0], 1) if loads else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What the journal says of the first retry."""

    retrying: float | None = None
    reason: str = ""
    attempts: int = 0
    resumed_at: int | None = None
    newest: int | None = None


def _told(events: Iterable[Event]) -> _Told:
    from jupyter_train.record import EventKind, RunView, fold

    view: RunView | None = None
    told = _Told()
    for event in events:
        if (
            event.kind is EventKind.STATE
            and event.payload.get("state") == "RETRYING"
            and told.retrying is None
        ):
            resume = event.payload.get("resume")
            whole = [one.step for one in view.checkpoints] if view is not None else []
            told = _Told(
                retrying=event.time,
                reason=str(event.payload.get("reason") or ""),
                resumed_at=int(resume["step"]) if resume else None,
                newest=max(whole, default=None),
            )
        view = fold([event], view)
    return _Told(
        retrying=told.retrying,
        reason=told.reason,
        attempts=view.attempt if view is not None else 0,
        resumed_at=told.resumed_at,
        newest=told.newest,
    )
