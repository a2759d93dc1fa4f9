"""What each rank is about to do, told to the others before it does it, so that ranks that part get an error and no hang.

Before each collective a rank posts one 64-bit word: the low 16 bits number the
operation, the rest is a digest of its kind, line, batch, learning rates and
loss. Before it *starts* the collective it looks at the others' words: one that
has the same number and differs means that the ranks have parted. A rank that
does not find a word there goes on and waits in the collective itself: whoever
comes later sees this rank's word. So nobody polls.

Within a host the words lie in shared memory. Across hosts they travel by an
asynchronous all-gather that is read before the collective starts.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn, Protocol

import torch

from jupyter_train.errors import RanksDiverged
from jupyter_train.record import WholeLoop
from jupyter_train.runtime.parallel.errors import PeerLost
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.hostmemory import host_memory
from jupyter_train.runtime.parallel.sites import Site, Sites
from jupyter_train.runtime.stopping import StartOver


class Kind(IntEnum):
    """What an operation is, as it stands in messages."""

    BACKWARD = 1
    STUDY = 2  #: the first backward of a line: what is its loss made of
    COLLECTIVE = 3  #: train.sum, train.mean, train.gather
    NORM = 4  #: statistics of a BatchNorm
    WEIGHTS = 5  #: are the parameters the same


class Life(IntEnum):
    """How a rank stands."""

    RUNNING = 0
    FINISHED = 1
    FAILED = 2
    PARTED = 3
    STARTS_OVER = 4


_TEXT = {
    Kind.BACKWARD: "in backward()",
    Kind.STUDY: "in backward()",
    Kind.COLLECTIVE: "in train.sum, mean or gather",
    Kind.NORM: "in the statistics of a BatchNorm",
    Kind.WEIGHTS: "in backward()",
}
_MASK = (1 << 63) - 1
ROW = 8  #: int64 numbers: word, sequence, kind, site, batch, rates, loss, life
RING = 4
LEFT_BEHIND = 10  #: looks, half a second each, before a rank that went on is not waited for any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One rank's newest operation, to be put in words."""

    sequence: int
    kind: int
    site: int
    batch: int
    rates: int
    loss: int
    life: int


class Board(Protocol):
    """Where the rows are posted."""

    def post(self, sequence: int, row: list[int]) -> None:
        """Show ``row``, whose first number is the word."""

    def words(self, sequence: int) -> list[int]:
        """Everybody's word as far as known, by rank; 0 where it is not."""

    def latest(self, rank: int) -> Row:
        """The newest row of ``rank``; slow, for messages only."""

    def live(self, life: Life) -> None:
        """Say how this rank stands."""


class SharedBoard:
    """Rows in a file that all ranks of the host have mapped; its name is gone as soon as they have."""

    def __init__(self, memory: mmap.mmap, rank: int, world_size: int) -> None:
        self._memory = memory
        self._cells = memoryview(memory).cast("q")
        self._rank = rank
        self._world_size = world_size
        self._mine = rank * (RING + 1) * ROW
        self._rows = [r * (RING + 1) * ROW for r in range(world_size)]

    def post(self, sequence: int, row: list[int]) -> None:
        cells = self._cells
        at = self._mine + (sequence % RING) * ROW
        for number in range(1, len(row)):
            cells[at + number] = row[number]
        cells[self._mine + RING * ROW] = sequence
        cells[at] = row[0]  # last: one aligned store, never seen half written

    def words(self, sequence: int) -> list[int]:
        cells = self._cells
        at = (sequence % RING) * ROW
        return [cells[start + at] for start in self._rows]

    def latest(self, rank: int) -> Row:
        start = self._rows[rank]
        sequence = self._cells[start + RING * ROW]
        life = self._cells[start + RING * ROW + 1]
        at = start + (sequence % RING) * ROW
        _, number, kind, site, batch, rates, loss = (self._cells[at + k] for k in range(7))
        return Row(sequence=number, kind=kind, site=site, batch=batch, rates=rates, loss=loss, life=life)

    def live(self, life: Life) -> None:
        self._cells[self._mine + RING * ROW + 1] = int(life)


class GatherBoard:
    """Rows by an all-gather on the control group: several hosts, or no shared memory."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._out = torch.zeros(groups.world_size * ROW, dtype=torch.int64)
        self._work: Any = None
        self._row: torch.Tensor | None = None

    def post(self, sequence: int, row: list[int]) -> None:
        self.settle()
        self._row = torch.tensor(row, dtype=torch.int64)
        self._groups.store.set(f"at/{self._groups.rank}", ",".join(map(str, row)))
        self._work = self._groups.control._allgather_base(self._out, self._row)

    def settle(self) -> None:
        """Wait for the others' rows."""
        work, self._work = self._work, None
        if work is not None:
            self._groups.wait(work)

    def words(self, sequence: int) -> list[int]:
        self.settle()
        words: list[int] = self._out.view(-1, ROW)[:, 0].tolist()
        return words

    def latest(self, rank: int) -> Row:
        store = self._groups.store
        row, life = [0] * ROW, 0
        try:
            if store.check([f"at/{rank}"]):
                row = [int(v) for v in store.get(f"at/{rank}").decode().split(",")]
            if store.check([f"life/{rank}"]):
                life = int(store.get(f"life/{rank}"))
        except RuntimeError:
            life = int(Life.FAILED)  # the store is gone, and with it rank 0
        _, sequence, kind, site, batch, rates, loss, _ = row
        return Row(sequence=sequence, kind=kind, site=site, batch=batch, rates=rates, loss=loss, life=life)

    def live(self, life: Life) -> None:
        try:
            self._groups.store.set(f"life/{self._groups.rank}", str(int(life)))
        except RuntimeError:
            pass  # the store is gone, and nobody is left to read it


def make_board(groups: Groups, *, one_host: bool) -> Board:
    """The fastest board that works for all ranks; collective."""
    if one_host:
        memory = host_memory(groups, "board", board_bytes(groups.world_size), on_disk=True)
        if memory is not None:
            return SharedBoard(memory, groups.rank, groups.world_size)
    return GatherBoard(groups)


def board_bytes(world_size: int) -> int:
    """Size of a shared board."""
    return world_size * (RING + 1) * ROW * 8


class Header:
    """Numbers this rank's operations, posts them, compares them."""

    def __init__(self, board: Board, groups: Groups, sites: Sites) -> None:
        self._board = board
        self._groups = groups
        self._sites = sites
        self.sequence = 0
        self._word = 0
        self._finished_or_failed = False
        self.parted = ""  #: how, once the ranks have: a cell that catches this must not go on
        self.over: StartOver | None = None  #: the attempt is given up: nothing in it counts any more
        self._left_behind = 0  #: looks in a row that found a rank beyond what this one waits for
        groups.on_wait = self.look

    def post(self, kind: Kind, site: Site, *, batch: int = 0, rates: int = 0, loss: int = 0) -> None:
        """This rank is about to do ``kind`` at ``site``.

        Raises:
            RanksDiverged: the ranks have parted before, and the cell has caught that.
            StartOver: as above, of that.
        """
        if self.over is not None:
            raise self.over
        if self.parted:
            self.part()
        self.sequence = sequence = self.sequence + 1
        digest = hash((int(kind), site.key, batch, rates, loss)) & _MASK
        self._word = word = (digest & ~0xFFFF) | (sequence & 0xFFFF) | (1 << 62)
        self._board.post(sequence, [word, sequence, int(kind), site.key, batch, rates, loss, 0])

    def check(self) -> None:
        """Before the collective that was posted starts.

        Raises:
            RanksDiverged: a rank has posted something else under the same number.
        """
        mine = self._word
        low = mine & 0xFFFF
        for word in self._board.words(self.sequence):
            if word != mine and word & 0xFFFF == low and word:
                self.part()

    def look(self, broken: BaseException | None) -> None:
        """While waiting: can the others still come? Called every half second, and when a connection breaks.

        Raises:
            RanksDiverged: one has finished the cell, or stands somewhere else.
            PeerLost: one has failed or vanished.
            StartOver: one starts over.
        """
        rows = [self._board.latest(r) for r in range(self._groups.world_size)]
        mine = rows[self._groups.rank]
        if any(row.life == Life.STARTS_OVER for row in rows):
            self.start_over()
        failed = [r for r, row in enumerate(rows) if row.life == Life.FAILED]
        if failed:
            raise PeerLost(f"rank {failed[0]} failed while this rank was at {self._place(mine)}")
        for rank, row in enumerate(rows):
            if rank == self._groups.rank:
                continue
            gone = row.life == Life.FINISHED and row.sequence < mine.sequence
            if gone or row.life == Life.PARTED:
                self.part()
            same = row.sequence == mine.sequence
            if same and (row.kind, row.site, row.batch, row.rates, row.loss) != (
                mine.kind, mine.site, mine.batch, mine.rates, mine.loss,
            ):  # fmt: skip
                self.part()
        # A rank that took part has sent what it had to: it can only be on its way. One that did not, as after an
        # error that its cell caught, never comes.
        self._left_behind = self._left_behind + 1 if any(r.sequence > mine.sequence for r in rows) else 0
        if self._left_behind >= LEFT_BEHIND and broken is None:
            self.part()
        if broken is not None:
            raise PeerLost(f"another rank was lost while this rank was at {self._place(mine)}")

    def live(self, life: Life) -> None:
        """Say how this rank stands; the end is said once."""
        if not self._finished_or_failed:
            self._finished_or_failed = life is not Life.RUNNING
            self._board.live(life)

    def start_over(self, whole: tuple[WholeLoop, ...] = ()) -> NoReturn:
        """The attempt is given up; whoever waits for this rank learns it.

        Args:
            whole: what was found, empty where another rank found it.

        Raises:
            StartOver: always.
        """
        if self.over is None:
            self.over = StartOver(whole)
            self.live(Life.STARTS_OVER)
        raise self.over

    def _place(self, row: Row) -> str:
        return self._sites.place(row.site)

    def part(self) -> NoReturn:
        """The ranks have parted.

        Raises:
            RanksDiverged: always, with each rank's place.
        """
        if not self.parted:
            self.parted = self._message([self._board.latest(r) for r in range(self._groups.world_size)])
            self.live(Life.PARTED)
        raise RanksDiverged(self.parted)

    def _message(self, rows: list[Row]) -> str:
        said: dict[str, list[int]] = {}
        for rank, row in enumerate(rows):
            if row.life == Life.FINISHED:
                text = "finished the cell"
            elif row.sequence == 0:
                text = "before its first backward()"
            else:
                text = f"{self._place(row)} {_TEXT.get(Kind(row.kind), '')}, call {row.sequence}".replace(
                    "  ", " "
                )
            said.setdefault(text, []).append(rank)
        if len(said) == 1:
            why = self._difference(rows)
            text = next(iter(said))
            return f"the ranks are at the same place ({text}) but {why}. Ranks must go the same way through the cell."
        parts = [f"{_ranks(ranks)}: {text}" for text, ranks in said.items()]
        return (
            "the ranks took different paths through the cell. "
            + "; ".join(parts)
            + ". A condition there, or an error that is caught, depends on the rank or on its share of the data; make it the same on all ranks, "
            "for instance with train.sum(...)."
        )

    @staticmethod
    def _difference(rows: list[Row]) -> str:
        if len({row.batch for row in rows}) > 1:
            return "drew different batches from the loader (a sampler or shuffle that is not seeded alike)"
        if len({row.rates for row in rows}) > 1:
            return (
                "have different learning rates, or only some of them did an optimizer step "
                "(a condition that depends on the rank or on its share of the data)"
            )
        if len({row.loss for row in rows}) > 1:
            return "their losses are made of different terms"
        return "did not arrive there together"


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]}–{ranks[-1]}"
    return "ranks " + ", ".join(map(str, ranks))
