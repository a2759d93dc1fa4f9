"""Whose turn it is: first come first served, with overtaking that has bounds.

Pure: the queue and the seats in, places and the rest of the queue out. The
dispatcher asks anew whenever something changes (a submission, an end, a worker
that comes or goes).

Schedulers that know run times let a small job overtake where it ends before the
first in the queue could start (EASY backfilling: Lifka 1995; Mu'alem and
Feitelson 2001). Nobody knows how long a notebook's cell trains, so what may
overtake is decided by numbers of workers alone:

* The first in the queue is overtaken freely by a run that cannot delay it, whichever
  of the runs end first: what becomes free is then always enough for both.
* Else a run that waits may be delayed, but a bounded number of times
  (``MOST_OVERTAKEN``), and only while those that have overtaken it leave it enough
  other workers. So it starts at the latest when all have ended that were
  before it, however long the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jupyter_train.control.placement import Place, Seat, by_preference, choose, counted

MOST_OVERTAKEN = 4  #: times that a run is overtaken by runs that may delay it


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A run that waits for its workers."""

    run_id: str
    ranks: int
    has_begun: bool = False  #: an attempt of it was given up or lost: it goes before all that have not begun
    overtaken: int = 0  #: times, by runs that may have delayed it
    overtaken_by: frozenset[str] = frozenset()  #: runs that go on, whether they delay it or not


Queue = tuple[Request, ...]
"""Those that wait, in the order in which it is their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A run that stays in the queue, and what for."""

    run_id: str
    queue_place: int  #: from 1
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with the queue now."""

    placed: tuple[tuple[str, tuple[Place, ...]], ...]  #: run id and places, by rank
    waiting: tuple[Waiting, ...]
    queue: Queue  #: what is left, with what it remembers of having been overtaken


def joined(queue: Queue, request: Request) -> Queue:
    """``queue`` with ``request`` in it: at its end, or behind those that have begun as it has."""
    if not request.has_begun:
        return (*queue, request)
    begun = sum(1 for other in queue if other.has_begun)
    return (*queue[:begun], request, *queue[begun:])


def left(queue: Queue, run_id: str) -> Queue:
    """``queue`` without that run."""
    return tuple(request for request in queue if request.run_id != run_id)


def plan(queue: Sequence[Request], seats: Iterable[Seat], *, coming: int = 0) -> Plan:
    """Place what can be placed of ``queue`` on the free ones of ``seats``.

    An older run that needs more workers than there are at all holds up nobody:
    it cannot take what others use meanwhile, and it is still first when workers
    come.

    Args:
        queue: in order.
        seats: of all workers that are there.
        coming: workers that were lost just now, in whose place others are expected.
    """
    state = _State.of(seats, coming)
    placed: list[tuple[str, tuple[Place, ...]]] = []
    rest: list[Request] = []
    for request in queue:
        places = state.place(request) if state.has_turn(request) else None
        if places is not None:
            placed.append((request.run_id, places))
            continue
        rest.append(request)
        if request.ranks <= state.workers + coming:
            state.ahead.append(replace(request, overtaken_by=request.overtaken_by & state.held.keys()))
    kept = {request.run_id: request for request in state.ahead}
    return Plan(
        placed=tuple(placed),
        waiting=tuple(
            Waiting(run_id=r.run_id, queue_place=number, reason=state.reason(r, number))
            for number, r in enumerate(rest, start=1)
        ),
        queue=tuple(kept.get(request.run_id, request) for request in rest),
    )


def spare(needed: int, running: Iterable[int]) -> int:
    """How many workers more than ``needed`` are free, at the least, as soon as ``needed`` are.

    Runs with ``running`` workers each end in an unknown order.
    """
    sums = 1  # bit n: some of the runs have n workers together
    for workers in running:
        sums |= sums << workers
    enough = sums >> needed
    return (enough & -enough).bit_length() - 1 if enough else 0


@dataclass(kw_only=True)
class _State:
    """Where one pass over the queue stands."""

    workers: int  #: that are there
    coming: int  #: that are not
    free: dict[str, Seat]  #: by worker, in order of preference
    silent: int  #: workers whose agent has not spoken: each may be free at any moment
    held: Counter[str]  #: workers of each run
    ahead: list[Request] = field(default_factory=list)  #: that wait, and would fit if all were free

    @classmethod
    def of(cls, seats: Iterable[Seat], coming: int) -> _State:
        everybody = tuple(seats)
        return cls(
            workers=len(everybody),
            coming=coming,
            free={s.worker: s for s in by_preference(s for s in everybody if s.is_free)},
            silent=sum(1 for s in everybody if not s.run_id and not s.is_free),
            held=Counter(s.run_id for s in everybody if s.run_id),
        )

    def has_turn(self, request: Request) -> bool:
        """Whether ``request`` may start now, as far as those before it are concerned."""
        if request.ranks > len(self.free) or not self.ahead:
            return request.ranks <= len(self.free)
        first, *others = self.ahead
        return (self._is_harmless(first, request) or self._is_bearable(first, request)) and all(
            self._is_bearable(other, request) for other in others
        )

    def place(self, request: Request) -> tuple[Place, ...] | None:
        """Give ``request`` its workers, past all that are ahead."""
        places = choose(request.ranks, self.free.values())
        if places is None:
            return None
        for number, other in enumerate(self.ahead):
            counts = bool(number) or not self._is_harmless(other, request)
            self.ahead[number] = replace(
                other,
                overtaken=other.overtaken + counts,
                overtaken_by=other.overtaken_by | {request.run_id},
            )
        for place in places:
            del self.free[place.worker]
        self.held[request.run_id] = len(places)
        return places

    def reason(self, request: Request, number: int) -> str:
        """What ``request``, ``number`` in the queue, waits for."""
        where = "first in the queue" if number == 1 else f"number {number} in the queue"
        needs = f"{where}: needs {counted(request.ranks)}"
        if request.ranks > self.workers:
            return f"{needs}, but only {self.workers} of them are left in the cluster"
        if not self.ahead or request.run_id == self.ahead[0].run_id:
            return f"{needs}, {len(self.free)} of {self.workers} free"
        if request.ranks <= len(self.free):
            return f"{needs}; the free ones are kept for those before it"
        return needs

    def _is_harmless(self, first: Request, request: Request) -> bool:
        """Whether ``first`` starts no later for ``request``, whatever ends when."""
        running = (*self.held.values(), *[1] * (self.silent + self.coming))
        return request.ranks <= spare(first.ranks - len(self.free), running)

    def _is_bearable(self, other: Request, request: Request) -> bool:
        """Whether ``other`` has not been overtaken too often, and can do without the workers of all that have."""
        taken = _workers(other.overtaken_by, self.held) + request.ranks
        is_enough_left = taken + other.ranks <= self.workers + self.coming
        return is_enough_left and other.overtaken < MOST_OVERTAKEN


def _workers(runs: Iterable[str], held: Mapping[str, int]) -> int:
    return sum(held.get(run_id, 0) for run_id in runs)
