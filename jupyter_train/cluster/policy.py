"""What the supervisor of a local cluster decides: events in, commands out; it does nothing itself.

How many workers there shall be, which lost one is started again and when, and
when the cluster is not needed any more. Time is given with each event, in
seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

MAX_WORKERS = 256  # a slip of the finger should not start ten thousand processes
STEADY_S = 20.0  #: a worker that lived so long did not fail to start
MAX_DELAY_S = 30.0
STARTING_S = 60.0  #: a cluster that is not complete is not idle for so long
GIVE_UP_AFTER = 4  #: failed starts of one worker, where none has ever come up


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the scheduler process says of its cluster."""

    clients: int  #: connected clients that are not the cluster's own
    runs: int  #: runs that have not ended
    busy: bool  #: whether any Dask task is being worked on
    workers: frozenset[str]  #: names of the workers that are there

    @property
    def is_needed(self) -> bool:
        """Whether anybody would miss the cluster."""
        return bool(self.clients or self.runs or self.busy)


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker process of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Shrink:
    """Ask the scheduler process to retire up to ``excess`` workers that are idle."""

    excess: int


@dataclass(frozen=True, slots=True)
class End:
    """End the cluster; nothing comes after it."""

    reason: str
    is_failure: bool = False


Command = StartWorker | Shrink | End


@dataclass(slots=True)
class _Worker:
    started: float
    failures: int = 0
    start_at: float | None = None  # set while no process of it runs
    retiring: bool = False


class Policy:
    """The mind of one supervisor."""

    def __init__(self, *, workers: int, idle_timeout_s: float, now: float) -> None:
        self.target = workers
        self._idle_timeout_s = idle_timeout_s
        self._idle_since: float | None = now
        self._workers: dict[str, _Worker] = {}
        self._status: Status | None = None
        self._has_scheduler = False
        self._ever_up = False
        self._ever_complete = False
        self._shrinking = False
        self._end: End | None = None

    @property
    def is_complete(self) -> bool:
        """Whether as many workers as wanted are there."""
        return self._status is not None and len(self._status.workers) >= self.target

    def tick(self, now: float) -> Iterator[Command]:
        """What is due by ``now``. Called after each event, and when `wait_s` is over."""
        if self._end is None and self._is_idle_at(now):
            self._end = End("nobody needs it")
        if self._end is not None:
            yield self._end
            return
        if self._has_scheduler:
            yield from self._grow(now)
            yield from self._shrink()

    def wait_s(self, now: float) -> float | None:
        """Seconds until `tick` has something to do, if no event comes first."""
        due = [one.start_at for one in self._workers.values() if one.start_at is not None]
        if self._idle_since is not None:
            due.append(self._idle_since + self._patience_s)
        return max(0.0, min(due) - now) if due else None

    # -- events

    def scheduler_listens(self) -> None:
        """The scheduler can be connected to: workers may start."""
        self._has_scheduler = True

    def heard(self, status: Status, now: float) -> None:
        """The scheduler process told how things are."""
        self._status = status
        self._ever_up = self._ever_up or bool(status.workers)
        if self.is_complete and not self._ever_complete:
            self._ever_complete = True
            self._idle_since = now  # who has started it comes now, however long that took
        if status.is_needed:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now

    def scale(self, n: int) -> None:
        """Somebody wants ``n`` workers."""
        self.target = max(1, min(n, MAX_WORKERS))

    def retiring(self, names: list[str]) -> None:
        """The scheduler process takes these workers out."""
        self._shrinking = False
        for name in names:
            if name in self._workers:
                self._workers[name].retiring = True

    def kept(self, names: list[str]) -> None:
        """These could not be taken out after all."""
        for name in names:
            if name in self._workers:
                self._workers[name].retiring = False

    def worker_exited(self, name: str, now: float) -> None:
        """A worker's process is gone.

        One that was retired is forgotten. Any other is started again: at once
        if it had been well, later and later if it fails as soon as it starts.
        """
        worker = self._workers.get(name)
        if worker is None:
            return
        if worker.retiring:
            del self._workers[name]
            return
        worker.failures = 1 if now - worker.started >= STEADY_S else worker.failures + 1
        delay = 0.0 if worker.failures == 1 else min(MAX_DELAY_S, 0.25 * 2**worker.failures)
        worker.start_at = now + delay
        if not self._ever_up and worker.failures >= GIVE_UP_AFTER:
            self._end = self._end or End("its workers end as soon as they start", is_failure=True)

    def scheduler_exited(self) -> None:
        """The scheduler's process is gone, and its runs with it: there is nothing left to keep."""
        self._end = self._end or End("its scheduler is gone", is_failure=True)

    def superseded(self) -> None:
        """Another version of this environment has a cluster now: end as soon as nobody needs this one."""
        self._idle_timeout_s = min(self._idle_timeout_s, 2.0)

    def stop(self, reason: str) -> None:
        """Somebody wants it to end."""
        self._end = self._end or End(reason)

    # -- rules

    def _is_idle_at(self, now: float) -> bool:
        return self._idle_since is not None and now >= self._idle_since + self._patience_s

    @property
    def _patience_s(self) -> float:
        """How long it may be idle. Who has started it waits until it is complete, which takes its time on a busy machine."""
        return self._idle_timeout_s if self._ever_complete else max(self._idle_timeout_s, STARTING_S)

    def _staying(self) -> list[str]:
        return [name for name, worker in self._workers.items() if not worker.retiring]

    def _grow(self, now: float) -> Iterator[Command]:
        for name, worker in self._workers.items():
            if worker.start_at is not None and worker.start_at <= now:
                worker.start_at, worker.started = None, now
                yield StartWorker(name)
        free = (f"w{number}" for number in count() if f"w{number}" not in self._workers)
        for _ in range(self.target - len(self._staying())):
            name = next(free)
            self._workers[name] = _Worker(started=now)
            yield StartWorker(name)

    def _shrink(self) -> Iterator[Command]:
        for name in sorted(self._staying(), key=number_of, reverse=True):
            if len(self._staying()) > self.target and self._workers[name].start_at is not None:
                del self._workers[name]  # no process to end
        excess = len(self._staying()) - self.target
        if excess > 0 and not self._shrinking:
            self._shrinking = True  # until the scheduler process has answered
            yield Shrink(excess)


def number_of(name: object) -> int:
    """The number in ``w7``; −1 for a worker of another make."""
    text = str(name)
    return int(text[1:]) if text[:1] == "w" and text[1:].isdigit() else -1
