"""What each rank is about to do, told to the others before it does it, so that ranks that part get an error and no hang.

Before each collective a rank posts one 64-bit word: the low 16 bits number the
operation, the rest is a digest of its kind, line, batch, learning rates and
loss. Before it *starts* the collective it looks at the others' words: one that
has the same number and differs means that the ranks have parted. A rank that
does not find a word there goes on and waits in the collective itself: whoever
comes later sees this rank's word. So nobody polls.

The words lie on a board (`board.py`). A rank that waits long for one that is
busy elsewhere asks it for its line, and says it; it goes on waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NoReturn

from jupyter_train.errors import RanksDiverged
from jupyter_train.record import WholeLoop
from jupyter_train.runtime.parallel.board import Board, Life, Row
from jupyter_train.runtime.parallel.errors import PeerLost
from jupyter_train.runtime.parallel.groups import PATIENCE, Groups
from jupyter_train.runtime.parallel.sites import Site, Sites
from jupyter_train.runtime.stopping import StartOver


class Kind(IntEnum):
    """What an operation is, as it stands in messages."""

    BACKWARD = 1
    STUDY = 2  #: the first backward of a line: what is its loss made of
    COLLECTIVE = 3  #: train.sum, train.mean, train.gather
    NORM = 4  #: statistics of a BatchNorm
    WEIGHTS = 5  #: are the parameters the same
    CHECKPOINT = 6  #: train.checkpoint
    EPOCH = 7  #: the end of an epoch of train.epochs


_TEXT = {
    Kind.BACKWARD: "in backward()",
    Kind.STUDY: "in backward()",
    Kind.COLLECTIVE: "in train.sum, mean or gather",
    Kind.NORM: "in the statistics of a BatchNorm",
    Kind.WEIGHTS: "in backward()",
    Kind.CHECKPOINT: "in train.checkpoint",
    Kind.EPOCH: "at the end of an epoch of train.epochs",
}
_MASK = (1 << 63) - 1
LEFT_BEHIND = 10  #: looks, half a second each, before a rank that went on is not waited for any more


class Header:
    """Numbers this rank's operations, posts them, compares them."""

    def __init__(
        self,
        board: Board,
        groups: Groups,
        sites: Sites,
        *,
        patience_s: float = 30.0,
        hang_s: float = 0.0,
        remark: Callable[[str], None] = lambda text: None,
        waits: Callable[[int, str], None] = lambda rank, hung: None,
    ) -> None:
        """What a rank tells the others.

        Args:
            patience_s: a rank that was waited for so long is named, with its line.
            hang_s: a rank that was waited for so long without a sign of life is given up; 0: never.
            remark: tells the user, from whichever rank.
            waits: tells the agent, from whichever rank, that a rank is waited for so long; and in what way it hangs,
                empty where it does not (yet).
        """
        self._board = board
        self._groups = groups
        self._sites = sites
        self._patience_s = patience_s
        self._hang_s = hang_s
        self._remark = remark
        self._waits = waits
        self._life: dict[
            int, tuple[int, int]
        ] = {}  #: rank → its signs of life, and the look that found the last
        self._looks = 0  #: since this rank's newest operation was posted
        self._told: set[tuple[int, int]] = set()
        self.sequence = 0
        self._word = 0
        self._finished_or_failed = False
        self.parted = ""  #: how, once the ranks have: a cell that catches this must not go on
        self.lost: PeerLost | None = None  #: a rank is gone: a cell that catches this must not go on
        self.over: StartOver | None = None  #: the attempt is given up: nothing in it counts any more
        self._left_behind = 0  #: looks in a row that found a rank beyond what this one waits for
        #: called with the line where ranks have losses of other terms in a split loop; does not return if that helps
        self.on_other_terms: Callable[[str], None] = lambda where: None
        groups.on_wait = self.look

    def post(self, kind: Kind, site: Site, *, batch: int = 0, rates: int = 0, loss: int = 0) -> None:
        """This rank is about to do ``kind`` at ``site``.

        Raises:
            RanksDiverged: the ranks have parted before, and the cell has caught that.
            StartOver, PeerLost: as above, of that.
        """
        if self.over is not None:
            raise self.over
        if self.lost is not None:
            raise self.lost
        if self.parted:
            self.part()
        self.sequence = sequence = self.sequence + 1
        if self._looks:
            self._looks = 0
            self._life.clear()
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
            self._lose(f"rank {failed[0]} failed while this rank was at {self._place(mine)}")
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
            self._lose(f"another rank was lost while this rank was at {self._place(mine)}")
        self._looks += 1
        self._tell_whom_it_waits_for(rows)

    def _tell_whom_it_waits_for(self, rows: list[Row]) -> None:
        """Others that are busy with something else are waited for; where they are is asked in time, and said."""
        mine = rows[self._groups.rank]
        waited_s = self._looks * PATIENCE.total_seconds()
        if waited_s < min(self._patience_s, self._hang_s or self._patience_s) / 2:
            return
        self._board.ask()
        waiting = [rank for rank, row in enumerate(rows) if row.sequence == mine.sequence]
        if self._groups.rank != waiting[0]:
            return  # one of them says it
        furthest_behind = min(row.sequence for row in rows)  # the others wait for those themselves
        for rank, row in enumerate(rows):
            if row.sequence >= mine.sequence or row.sequence > furthest_behind:
                continue
            where, signs = self._board.where(rank)
            is_known, found = self._life.get(rank, (-1, 0))
            if is_known != signs:
                self._life[rank] = (signs, self._looks)
            elif self._hang_s and (self._looks - found) * PATIENCE.total_seconds() >= self._hang_s:
                self._life[rank] = (signs, self._looks)  # once: the controller ends the attempt
                self._waits(rank, self._hangs(rank, where, waiting, mine))
            if waited_s >= self._patience_s and (rank, mine.site) not in self._told:
                self._told.add((rank, mine.site))
                self._waits(rank, "")
                self._remark(self._slow(rank, where, waiting, mine))

    def _slow(self, rank: int, where: int, waiting: list[int], mine: Row) -> str:
        return (
            f"rank {rank} {self._seen(where)} while {_ranks(waiting)} {_wait(waiting)} for it at {self._place(mine)}"
            f"{_doing(mine)}, for {self._patience_s:g} s "
            "by now. A rank that is slow is waited for; where this one never comes, because of a condition that depends on "
            "the rank or on its share of the data, interrupt the run"
            + (
                f". Without any sign of life for {self._hang_s:g} s (jupyter-train.hang-timeout) it is given up"
                if self._hang_s
                else ""
            )
        )

    def _hangs(self, rank: int, where: int, waiting: list[int], mine: Row) -> str:
        return (
            f"it {self._seen(where)} and gave no sign of life for {self._hang_s:g} s, while {_ranks(waiting)} "
            f"{_wait(waiting)} for it at {self._place(mine)}{_doing(mine)}"
        )

    def _seen(self, where: int) -> str:
        return f"is at {self._sites.place(where)}" if where else "does not answer"

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

    def _lose(self, why: str) -> NoReturn:
        self.lost = PeerLost(why)
        raise self.lost

    def _place(self, row: Row) -> str:
        return self._sites.place(row.site)

    def part(self) -> NoReturn:
        """The ranks have parted.

        Raises:
            RanksDiverged: with each rank's place.
            StartOver: where ranks only have shares of a batch whose losses are made of other terms.
        """
        if not self.parted:
            rows = [self._board.latest(r) for r in range(self._groups.world_size)]
            if any(row.life == Life.STARTS_OVER for row in rows):
                self.start_over()
            if _have_other_terms(rows):
                self.on_other_terms(self._place(rows[0]))
            self.parted = self._message(rows)
            self.live(Life.PARTED)
        raise RanksDiverged(self.parted)

    def _message(self, rows: list[Row]) -> str:
        said: dict[str, list[int]] = {}
        for rank, row in enumerate(rows):
            if row.life == Life.FINISHED:
                text = "finished the cell"
            elif row.life == Life.FAILED and row.sequence == 0:
                text = "ended before it could be asked for its line"  # and the store with it
            elif row.sequence == 0:
                text = "before its first backward()"
            else:
                text = f"{self._place(row)}{_doing(row)}, call {row.sequence}"
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
            return (
                "work on different batches (only some of them skipped or repeated a step, by a condition or an error that "
                "is caught; or a sampler or shuffle is not seeded alike)"
            )
        if len({row.rates for row in rows}) > 1:
            return (
                "have different learning rates, or only some of them did an optimizer step "
                "(a condition that depends on the rank or on its share of the data)"
            )
        if len({row.loss for row in rows}) > 1:
            return "their losses are made of different terms"
        return "did not arrive there together"


def _have_other_terms(rows: list[Row]) -> bool:
    """Those that have come furthest are before the same backward of one step, but their losses are made differently.

    The others are on their way: they have not come to it yet.
    """
    furthest = max(row.sequence for row in rows)
    there = [row for row in rows if row.sequence == furthest]
    return (
        all(row.life == Life.RUNNING for row in rows)
        and len({(row.site, row.batch, row.rates) for row in there}) == 1
        and {row.kind for row in there} <= {Kind.STUDY, Kind.BACKWARD}
        and len({(row.kind, row.loss) for row in there}) > 1
    )


def _doing(row: Row) -> str:
    return f" {_TEXT[Kind(row.kind)]}"


def _wait(ranks: list[int]) -> str:
    return "wait" if len(ranks) > 1 else "waits"


def _ranks(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]}–{ranks[-1]}"
    return "ranks " + ", ".join(map(str, ranks))
