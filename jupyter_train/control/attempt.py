"""One launch of all ranks of a run: where each is, as far as it is known."""

from __future__ import annotations

from jupyter_train.control.messages import Mode, RankHung
from jupyter_train.control.placement import Place
from jupyter_train.record import ResumePoint, WholeLoop


class Attempt:
    """What is known of the ranks of one attempt. Belongs to its machine."""

    def __init__(self, places: tuple[Place, ...] = (), resume: ResumePoint | None = None) -> None:
        self.places = places  #: by rank; none: it waits for workers
        self.resume = resume  #: where it begins
        self.mode: Mode | None = None  #: what the ranks were told last
        self.is_late = False  #: it was said that its start takes long
        self.hung: RankHung | None = None  #: a rank whose stacks are being taken
        self.found: list[WholeLoop] = []
        self.ready: set[int] = set()
        self.erred: set[int] = set()
        self.gone: set[int] = set()
        self.reading: dict[str, int] = {}  #: lost worker → its rank, whose spool is being read
        self.lost: list[int] = []  #: ranks whose workers were lost, in the order of their loss

    @property
    def is_gone(self) -> bool:
        """It was launched, and nothing of it is left."""
        return bool(self.places) and len(self.gone) == len(self.places)

    @property
    def has_begun(self) -> bool:
        """Every rank has begun the cell."""
        return bool(self.places) and len(self.ready) == len(self.places)

    def alive(self, worker: str | None = None) -> list[int]:
        """Ranks whose process may still be there, those of lost workers left out."""
        return [
            p.rank
            for p in self.places
            if p.rank not in self.gone and p.worker not in self.reading and worker in (None, p.worker)
        ]

    def workers_of(self, mode: Mode, ranks: list[int]) -> tuple[str, ...]:
        """Whom to tell ``mode``: a rank that failed by itself is on its way, and only a kill is for it."""
        return tuple(self.places[r].worker for r in ranks if mode == "kill" or r not in self.erred)

    def freed(self, abandoned: list[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Workers that are free once it is over, and those of ``abandoned`` ranks."""
        left = tuple(self.places[r].worker for r in abandoned)
        return tuple(p.worker for p in self.places if p.worker not in left), left

    def has(self, rank: int) -> bool:
        """It has a rank of that number."""
        return 0 <= rank < len(self.places)
