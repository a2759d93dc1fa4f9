"""Campaign: many short runs that succeed, are stopped, fail or are killed; what they leave behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.report import progress
from benchmarks.soak import cells, census, plan
from benchmarks.soak.census import Census
from benchmarks.soak.interrupts import ended_as, state_of, wait_until
from benchmarks.soak.kernel import Act, Patient

WARM = 8  #: cycles before the first look: caches fill, threads start
SETTLE_S = 10.0  #: at most, until nothing of the last run is left
#: How each kind ends: the state of the run, and the error of its cell.
EXPECTED = {
    "run": ("SUCCEEDED", ""),
    "stop": ("CANCELLED", "KeyboardInterrupt"),
    "fail": ("FAILED", "ValueError"),
    "kill": ("FAILED", "RankLost"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What there was after a number of cycles."""

    cycles: int
    kept_runs: int  #: in the journal: they are meant to be kept
    roles: dict[str, int]
    zombies: int
    descriptors: dict[str, int]  #: by role
    sockets: dict[str, int]
    private_bytes: dict[str, int]
    files: tuple[str, ...]  #: temporary ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One cycle."""

    kind: str
    took_s: float
    state: str
    error: str
    said: str = ""  #: its last line, where it was not as expected

    @property
    def is_as_expected(self) -> bool:
        """It ended as its kind ends."""
        return (self.state, self.error) == EXPECTED[self.kind]


def campaign(
    kernel: Patient, count: int, *, folders: tuple[Path, ...], looks: int = 11, seed: int = 0
) -> Iterator[Cycle | Look]:
    """``count`` cycles, after WARM others; a look at the beginning, at the end and ``looks`` − 2 times between."""
    for number, kind in enumerate(plan.cycles(min(WARM, count), seed=seed)):
        _cycle(kernel, kind, f"warm-{number}")
    first = look(kernel.home, 0, folders=folders)
    yield first
    every = max(1, count // (looks - 1))
    for number, kind in enumerate(plan.cycles(count, seed=seed + 1), start=1):
        done = _cycle(kernel, kind, f"cycle-{number}")
        yield done
        if not done.is_as_expected:
            progress(f"cycle {number}: {done}")
        if number % every == 0 or number == count:
            seen = look(kernel.home, number, folders=folders, like=first)
            progress(
                f"cycle {number}/{count}: {seen.roles}, descriptors {sum(seen.descriptors.values())}, "
                f"{sum(seen.private_bytes.values()) / 1e6:.0f} MB, files {len(seen.files)}"
            )
            yield seen


def _cycle(kernel: Patient, kind: str, name: str) -> Cycle:
    begun = time.monotonic()

    def once_running() -> None:
        wait_until(lambda: state_of(kernel.home, name) == "RUNNING", 30)
        if kind == "stop":
            kernel.interrupt()
            return
        victims = [p for p in census.ranks(kernel.home) if p.role == "rank"]
        os.kill(victims[len(name) % len(victims)].pid, signal.SIGKILL)

    acts = [Act(at_s=0.05, do=once_running)] if kind in ("stop", "kill") else []
    # Every fourth one has loader workers too.
    ended = kernel.go(cells.cycle(kind, name=name, workers=2 if name.endswith(("3", "7")) else 0), acts)
    done = Cycle(
        kind=kind,
        took_s=time.monotonic() - begun,
        state=ended_as(kernel.home, name),
        error=ended.error,
    )
    return done if done.is_as_expected else replace(done, said=ended.said[-2000:])


def look(home: Path, cycles: int, *, folders: tuple[Path, ...], like: Look | None = None) -> Look:
    """What there is once nothing of a run goes on any more, and no more is held than in ``like``; or after SETTLE_S."""
    wait_until(lambda: _is_quiet(census.take(home)), SETTLE_S)
    wait_until(lambda: like is None or _holds_no_more(_look(home, cycles, folders), like), SETTLE_S)
    return _look(home, cycles, folders)


def _holds_no_more(now: Look, like: Look) -> bool:
    return sum(now.descriptors.values()) <= sum(like.descriptors.values())


def _look(home: Path, cycles: int, folders: tuple[Path, ...]) -> Look:
    from jupyter_train.store import Store

    seen = census.take(home, folders=folders, deep=True)
    roles = sorted(seen.roles)
    return Look(
        cycles=cycles,
        kept_runs=len(Store(home).runs()),
        roles=seen.roles,
        zombies=seen.zombies,
        descriptors={role: seen.total("descriptors", role) for role in roles},
        sockets={role: seen.total("sockets", role) for role in roles},
        private_bytes={role: seen.total("private_bytes", role) for role in roles},
        files=seen.files,
    )


def _is_quiet(seen: Census) -> bool:
    """Nothing of a run goes on or waits to be reaped, and every worker has its zygote again."""
    is_over = not (seen.count("rank") or seen.count("shadow") or seen.zombies)
    return is_over and seen.count("zygote") == seen.count("worker")
