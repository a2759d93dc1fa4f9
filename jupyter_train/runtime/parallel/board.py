"""Where ranks post what they are about to do and where they stand, for the others to see.

Within a host in shared memory; across hosts by an all-gather, and through the
run's store what is only read when something takes long.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import torch

from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.hostmemory import host_memory

ROW = 8  #: int64 numbers: word, sequence, kind, site, batch, rates, loss, life
RING = 4
_LIFE, _ASKED, _WHERE, _SIGNS = 1, 2, 3, 4  #: places in a rank's last row; the first is its newest sequence


class Life(IntEnum):
    """How a rank stands."""

    RUNNING = 0
    FINISHED = 1
    FAILED = 2
    PARTED = 3
    STARTS_OVER = 4


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

    def ask(self) -> None:
        """This rank waits for others: they are to say where they are, from now on."""

    def is_asked(self) -> bool:
        """Whether some rank wants to know. Any thread."""

    def say_where(self, site: int, signs: int) -> None:
        """This rank is at the line with that key, and has given so many signs of life. Any thread."""

    def where(self, rank: int) -> tuple[int, int]:
        """The key of the line at which that rank was seen last, 0: it has not said; and how many signs of life it has given."""


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
        life = self._cells[start + RING * ROW + _LIFE]
        at = start + (sequence % RING) * ROW
        _, number, kind, site, batch, rates, loss = (self._cells[at + k] for k in range(7))
        return Row(sequence=number, kind=kind, site=site, batch=batch, rates=rates, loss=loss, life=life)

    def live(self, life: Life) -> None:
        self._cells[self._mine + RING * ROW + _LIFE] = int(life)

    def ask(self) -> None:
        self._cells[self._mine + RING * ROW + _ASKED] = 1

    def is_asked(self) -> bool:
        return any(self._cells[start + RING * ROW + _ASKED] for start in self._rows)

    def say_where(self, site: int, signs: int) -> None:
        self._cells[self._mine + RING * ROW + _WHERE] = site
        self._cells[self._mine + RING * ROW + _SIGNS] = signs

    def where(self, rank: int) -> tuple[int, int]:
        at = self._rows[rank] + RING * ROW
        return int(self._cells[at + _WHERE]), int(self._cells[at + _SIGNS])


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
        mine = self._row if rank == self._groups.rank else None
        if mine is not None:
            row = mine.tolist()  # known also when the store is not there any more
        try:
            if mine is None and store.check([f"at/{rank}"]):
                row = [int(v) for v in store.get(f"at/{rank}").decode().split(",")]
            if store.check([f"life/{rank}"]):
                life = int(store.get(f"life/{rank}"))
        except RuntimeError:
            life = int(Life.FAILED)  # the store is gone, and with it rank 0
        _, sequence, kind, site, batch, rates, loss, _ = row
        return Row(sequence=sequence, kind=kind, site=site, batch=batch, rates=rates, loss=loss, life=life)

    def live(self, life: Life) -> None:
        self._set(f"life/{self._groups.rank}", str(int(life)))

    def ask(self) -> None:
        self._set("asked", "1")

    def is_asked(self) -> bool:
        try:
            return bool(self._groups.store.check(["asked"]))
        except RuntimeError:
            return False

    def say_where(self, site: int, signs: int) -> None:
        self._set(f"where/{self._groups.rank}", f"{site},{signs}")

    def where(self, rank: int) -> tuple[int, int]:
        store = self._groups.store
        try:
            said = store.get(f"where/{rank}") if store.check([f"where/{rank}"]) else b"0,0"
        except RuntimeError:
            return 0, 0
        site, signs = said.decode().split(",")
        return int(site), int(signs)

    def _set(self, key: str, value: str) -> None:
        try:
            self._groups.store.set(key, value)
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
