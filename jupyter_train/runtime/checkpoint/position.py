"""Where a run stands in its loops, as a checkpoint holds it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One loop over ``train.epochs`` that has begun and not ended."""

    number: int  #: of the loop: how many had begun before it
    epoch: int  #: in which the run goes on
    begun: int  #: loops that had begun when that epoch's body did


@dataclass(frozen=True, slots=True, kw_only=True)
class PassStanding:
    """One pass over a loader, in the middle of an epoch."""

    done: int  #: batches that were handed out and worked on
    backwards: int = 0  #: that came out of them
    splits: bool | None = False  #: None: as the loop says
    uneven: int = 0  #: of its next batches are cut unevenly
    persists: bool = False  #: its workers were there before it
    drawn: tuple[tuple[bool, bool], ...] = ()  #: batches that its workers have already: split, unevenly


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """All loops of the cell."""

    open: tuple[Standing, ...] = ()  #: outermost first
    begun: int = 0  #: loops over ``train.epochs``, also those that have ended
    last: int | None = None  #: epochs of the newest loop, where that has done them all
    passes: tuple[PassStanding, ...] = ()  #: zipped ones; empty: the run goes on at the beginning of an epoch
    given: Mapping[str, str] = field(
        default_factory=dict
    )  #: label by which a thing is found → by which it is kept

    @property
    def is_mid_epoch(self) -> bool:
        """The run goes on behind a batch."""
        return bool(self.passes)

    def for_other_ranks(self) -> Position:
        """As ranks of another number go on there: what they had drawn ahead was cut for others."""
        passes = tuple(replace(one, drawn=(), splits=None) for one in self.passes)
        return replace(self, passes=passes)

    def to_plain(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "open": [[one.number, one.epoch, one.begun] for one in self.open],
            "begun": self.begun,
            "last": self.last,
            "passes": [plain_pass(one) for one in self.passes],
            "given": dict(self.given),
        }


def position_of(plain: Mapping[str, Any]) -> Position:
    """What :meth:`Position.to_plain` gave.

    Raises:
        ValueError: it is something else.
    """
    try:
        return Position(
            open=tuple(Standing(number=n, epoch=e, begun=b) for n, e, b in plain["open"]),
            begun=int(plain["begun"]),
            last=None if plain["last"] is None else int(plain["last"]),
            passes=tuple(map(pass_of, plain["passes"])),
            given={str(one): str(other) for one, other in plain["given"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"not a position in the loops of a cell: {error}") from None


def plain_pass(one: PassStanding) -> list[Any]:
    """As it is kept."""
    drawn = [list(two) for two in one.drawn]
    return [one.done, one.backwards, one.splits, one.uneven, one.persists, drawn]


def pass_of(plain: Sequence[Any]) -> PassStanding:
    """What :func:`plain_pass` gave."""
    done, backwards, splits, uneven, persists, drawn = plain
    return PassStanding(
        done=int(done),
        backwards=int(backwards),
        splits=bool(splits),
        uneven=int(uneven),
        persists=bool(persists),
        drawn=tuple((bool(a), bool(b)) for a, b in drawn),
    )
