"""Campaign: interrupts at random times of runs that step, reduce, load, sleep or are in C."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import progress
from benchmarks.soak import cells, census, plan
from benchmarks.soak.kernel import Act, Patient

GONE_WITHIN_S = 10.0  #: processes of a run that has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """One trial."""

    place: str
    at_s: float  #: after the press
    found: str  #: the state of the run then, as the store knew it; empty: it had none yet
    graceful_s: float | None  #: from the only interrupt to the end of the cell
    forced_s: float | None  #: from the second interrupt to the end of the cell
    state: str  #: in which the run ended
    error: str  #: that the cell ended with
    steps: tuple[int, ...]  #: done by each rank; empty: it did not come so far
    steps_in_kernel: int | None  #: what came back of it
    left: int  #: processes of the run that were still there after GONE_WITHIN_S
    gone_s: float  #: from the end of the cell until no process of it was left
    next_s: float  #: that the next run took, from press to end
    next_ok: bool
    intact: bool  #: variables of the kernel that the cell does not name
    load: float = 0.0  #: of the machine at the interrupt

    @property
    def was_over(self) -> bool:
        """The run had ended by itself before the interrupt came."""
        return self.state == "SUCCEEDED"


def campaign(
    kernel: Patient, count: int, *, length_s: float, seed: int = 0, places: tuple[str, ...] = cells.PLACES
) -> Iterator[Interrupted]:
    """``count`` trials, one after the other; the kernel needs ``cells.SETUP``."""
    before = kernel.run("print(fingerprint())")
    drawn = [one for one in plan.interrupts(5 * count, length_s=length_s, seed=seed) if one.place in places]
    for number, one in enumerate(drawn[:count]):
        trial = _trial(kernel, one, number, length_s=length_s, before=before)
        progress(
            f"interrupt {number + 1}/{count}: {trial.place} at {trial.at_s:.2f} s ({trial.found or 'not yet begun'}): "
            f"{_seconds(trial.graceful_s)} graceful, {_seconds(trial.forced_s)} forced, {trial.state}, steps {trial.steps}"
        )
        yield trial


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"


def _trial(kernel: Patient, one: plan.Interrupt, number: int, *, length_s: float, before: str) -> Interrupted:
    name, folder = f"interrupted-{number}", kernel.home / "steps"
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    times: list[float] = []
    loads: list[float] = []
    found: list[str] = []

    def interrupt() -> None:
        times.append(time.monotonic())
        kernel.interrupt()
        loads.append(os.getloadavg()[0])
        if len(times) == 1:
            found.append(state_of(kernel.home, name))

    acts = [Act(at_s=one.at_s, do=interrupt)]
    if one.again_after_s is not None:
        acts.append(Act(at_s=one.at_s + one.again_after_s, do=interrupt))
    code = cells.endless(one.place, name=name, folder=str(folder), length_s=length_s)
    ended = kernel.go(code, acts)
    end = time.monotonic()
    left, gone_s = wait_gone(kernel.home, GONE_WITHIN_S)
    state = ended_as(kernel.home, name)
    steps = _steps(folder)
    intact = kernel.run("print(fingerprint())") == before
    came_back = kernel.run("print(globals().pop('steps', None))").strip()
    following = kernel.go(cells.NEXT.format(name=f"next-{number}"))
    answer = kernel.go(cells.NEXT_ANSWER).text.strip()
    kernel.run("globals().pop('answer', None)")
    only_one = len(times) == 1
    return Interrupted(
        place=one.place,
        at_s=one.at_s,
        found=found[0] if found else "",
        graceful_s=end - times[0] if only_one else None,
        forced_s=end - times[1] if len(times) > 1 else None,
        state=state,
        error=ended.error,
        steps=steps,
        steps_in_kernel=int(came_back) if came_back.isdigit() else None,
        left=left,
        gone_s=gone_s,
        next_s=following.took_s,
        next_ok=not following.error and answer == "42.0",
        intact=intact,
        load=round(loads[0], 1) if loads else 0.0,
    )


def _steps(folder: Path) -> tuple[int, ...]:
    return tuple(int(file.read_text() or 0) for file in sorted(folder.iterdir()))


def state_of(home: Path, name: str) -> str:
    """The state of the newest run of that name, as any reader of the store sees it; empty where there is none."""
    from jupyter_train.store import Store

    with contextlib.suppress(StopIteration):
        return str(next(run.state or "" for run in Store(home).runs() if run.name == name))
    return ""


def ended_as(home: Path, name: str, timeout_s: float = 10.0) -> str:
    """Its state once that is the last one: a reader learns it a commit later than the kernel."""
    over = ("", "SUCCEEDED", "FAILED", "CANCELLED")
    wait_until(lambda: state_of(home, name) in over, timeout_s)
    return state_of(home, name)


def wait_gone(home: Path, timeout_s: float) -> tuple[int, float]:
    """Waits for the end of all processes of runs; gives how many are left, and how long it took."""
    begun = time.monotonic()
    wait_until(lambda: not census.ranks(home), timeout_s)
    took = time.monotonic() - begun
    return len(census.ranks(home)), took


def wait_until(claim: Callable[[], bool], timeout_s: float) -> bool:
    """Whether ``claim`` came to hold in time."""
    end = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
