"""Which workers a run gets: all its ranks at once or none, first come first served.

Pure: seats and requests in, places out. The controller asks anew whenever
something changes (a submission, an end, a worker that comes or goes).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jupyter_train.errors import NotEnoughWorkers


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A worker, as placement sees it. It holds one rank at a time."""

    worker: str  #: its Dask address
    name: str
    host: str
    has_agent: bool = True  #: the agent has answered: ranks can be launched here
    is_ready: bool = True  #: its zygote is prewarmed: a launch takes milliseconds, not seconds
    is_free: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A run that waits for its workers."""

    run_id: str
    ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one rank runs."""

    rank: int
    local_rank: int  #: number among this run's ranks on the host, from 0
    local_world_size: int  #: ranks of this run on the host
    worker: str
    name: str
    host: str


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


def check_fits(ranks: int, workers: int, cluster: str = "") -> None:
    """Refuse a run that the cluster could not start even if it were idle.

    Raises:
        NotEnoughWorkers: ``ranks`` is more than ``workers``.
    """
    if ranks <= workers:
        return
    which = f'cluster "{cluster}"' if cluster else "the cluster"
    instead = f",  or pass  --ranks {workers}." if workers else "."
    raise NotEnoughWorkers(
        f"the run needs {_counted(ranks)} but {which} has {workers}. "
        f"Scale it with  %train cluster scale {ranks}{instead}"
    )


def plan(queue: Sequence[Request], seats: Iterable[Seat]) -> Plan:
    """Place what can be placed of ``queue`` (oldest first) on the free ones of ``seats``.

    A run waits behind every older one, so that a large run is not starved by
    small ones. The exception is an older run that needs more workers than
    there are at all: it cannot take what others use meanwhile, and it is still
    first when workers come.
    """
    all_seats = tuple(seats)
    free = {s.worker: s for s in all_seats if s.is_free and s.has_agent}
    placed: list[tuple[str, tuple[Place, ...]]] = []
    waiting: list[Waiting] = []
    is_blocked = False
    for request in queue:
        places = None if is_blocked else choose(request.ranks, free.values())
        if places is not None:
            placed.append((request.run_id, places))
            for place in places:
                del free[place.worker]
            continue
        number = len(waiting) + 1
        waiting.append(
            Waiting(
                run_id=request.run_id,
                queue_place=number,
                reason=_why(request.ranks, len(free), len(all_seats), number),
            )
        )
        is_blocked = is_blocked or request.ranks <= len(all_seats)
    return Plan(placed=tuple(placed), waiting=tuple(waiting))


def choose(ranks: int, free: Iterable[Seat]) -> tuple[Place, ...] | None:
    """Places of ``ranks`` ranks on the ``free`` seats, by rank; None where they do not suffice.

    Seats whose zygote is ready are taken first. Ranks share as few hosts as
    they can, and those on one host have neighbouring numbers, which is what
    collectives and ``local_rank`` expect.
    """
    candidates = sorted(free, key=lambda s: (not s.is_ready, _natural(s)))
    if ranks < 1 or len(candidates) < ranks:
        return None
    ready = [s for s in candidates if s.is_ready]
    chosen = _on_few_hosts(ranks, ready if len(ready) >= ranks else candidates)
    size = {host: sum(1 for s in chosen if s.host == host) for host in {s.host for s in chosen}}
    places: list[Place] = []
    local: dict[str, int] = defaultdict(int)
    for rank, seat in enumerate(chosen):
        places.append(
            Place(
                rank=rank,
                local_rank=local[seat.host],
                local_world_size=size[seat.host],
                worker=seat.worker,
                name=seat.name,
                host=seat.host,
            )
        )
        local[seat.host] += 1
    return tuple(places)


def _on_few_hosts(ranks: int, candidates: Sequence[Seat]) -> list[Seat]:
    """``ranks`` of ``candidates`` (in order of preference), host after host."""
    hosts: dict[str, list[Seat]] = defaultdict(list)
    for seat in candidates:
        hosts[seat.host].append(seat)
    chosen: list[Seat] = []
    while len(chosen) < ranks:
        wanted = ranks - len(chosen)
        fitting = [h for h in hosts if len(hosts[h]) >= wanted]
        # The tightest host that holds the rest; without one, the widest, so that the rest is small.
        host = (
            min(fitting, key=lambda h: len(hosts[h])) if fitting else max(hosts, key=lambda h: len(hosts[h]))
        )
        chosen.extend(sorted(hosts.pop(host)[:wanted], key=_natural))
    return chosen


def natural_order(name: str) -> tuple[bool, int, str]:
    """Sorts names of workers as people count: 2 comes before 10."""
    is_number = name.isdecimal()
    return not is_number, int(name) if is_number else 0, name


def _natural(seat: Seat) -> tuple[bool, int, str, str]:
    return *natural_order(seat.name), seat.worker


def _why(ranks: int, free: int, workers: int, number: int) -> str:
    if ranks > workers:
        return f"needs {_counted(ranks)}, but only {workers} of them are left in the cluster"
    if number > 1:
        return f"needs {_counted(ranks)}; number {number} in the queue"
    return f"needs {_counted(ranks)}, {free} of {workers} free"


def _counted(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
