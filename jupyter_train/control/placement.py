"""Which workers the ranks of a run get: all at once or none, close together.

Pure: seats in, places out. Whose turn it is says `jupyter_train.control.waitlist`.
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
    run_id: str = ""  #: whose rank it has

    @property
    def is_free(self) -> bool:
        """A rank can be launched here now."""
        return self.has_agent and not self.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one rank runs."""

    rank: int
    local_rank: int  #: number among this run's ranks on the host, from 0
    local_world_size: int  #: ranks of this run on the host
    worker: str
    name: str
    host: str


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
        f"the run needs {counted(ranks)} but {which} has {workers}. "
        f"Scale it with  %train cluster scale {ranks}{instead}"
    )


def by_preference(seats: Iterable[Seat]) -> list[Seat]:
    """``seats``, those with a ready zygote first, each kind as people count."""
    return sorted(seats, key=lambda s: (not s.is_ready, _natural(s)))


def choose(ranks: int, free: Iterable[Seat]) -> tuple[Place, ...] | None:
    """Places of ``ranks`` ranks on the ``free`` seats, by rank; None where they do not suffice.

    Seats whose zygote is ready are taken first. Ranks share as few hosts as
    they can, and those on one host have neighbouring numbers, which is what
    collectives and ``local_rank`` expect.

    Args:
        ranks: of the run.
        free: in the order of :func:`by_preference`.
    """
    candidates = list(free)
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


def counted(workers: int) -> str:
    """``1 worker``, ``3 workers``."""
    return "1 worker" if workers == 1 else f"{workers} workers"
