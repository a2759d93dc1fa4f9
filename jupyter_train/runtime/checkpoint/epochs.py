"""``train.epochs``: loops that go on where a checkpoint stood."""

from __future__ import annotations

import dis
import operator
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from jupyter_train.runtime.checkpoint.position import Position, Standing

if TYPE_CHECKING:
    from jupyter_train.runtime.checkpoint.checkpoints import Checkpoints


def whole_number(count: Any) -> int:
    """How many epochs.

    Raises:
        TypeError, ValueError: it is no number of epochs.
    """
    try:
        number = operator.index(count)
    except TypeError:
        raise TypeError(f"train.epochs({count!r}): the number of epochs is a whole number") from None
    if number < 0:
        raise ValueError(f"train.epochs({number}): the number of epochs is not negative")
    return number


class Epochs(Iterator[int]):
    """One loop. Main thread of a rank."""

    def __init__(self, owner: Checkpoints, count: int) -> None:
        self._owner = owner
        self.count = count
        self.number = -1  #: among the loops of the cell; -1: it has not begun
        self.epoch = -1  #: whose body runs
        self.begun = 0  #: loops that had begun when that body did
        self.is_over = False
        self.is_left = False  #: by ``break``
        self.frame: FrameType | None = None  #: the user's, in which the loop runs
        self.body: tuple[dis.Instruction, ...] | None = None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Epochs:
        return self

    def __next__(self) -> int:
        if self.is_over:
            raise StopIteration
        return self._owner.next_epoch(self)

    def end(self) -> None:
        """It has ended, or was left."""
        self.is_over = True
        self.frame = None

    def __del__(self) -> None:
        try:
            if not self.is_over and self.number >= 0:
                self._owner.left(self)
        except Exception:
            pass  # while the interpreter ends, anything may be gone


class Loops:
    """All loops of the cell: which are open, and where a resumed attempt enters them. Pure but for the references."""

    def __init__(self, position: Position | None) -> None:
        """Nothing has begun.

        Args:
            position: of the checkpoint that the attempt begins from.
        """
        self.begun = 0
        self._open: list[weakref.ref[Epochs]] = []
        self.entering = position  #: until the place is reached

    @property
    def open(self) -> list[Epochs]:
        """Outermost first."""
        found = [ref() for ref in self._open]
        return [one for one in found if one is not None and not one.is_over]

    def begin(self, loop: Epochs) -> bool:
        """``loop`` begins, and its next epoch is the first; gives whether the state of the checkpoint is to be loaded."""
        loop.number, self.begun = self.begun, self.begun + 1
        position = self.entering
        if position is None:
            self._open.append(weakref.ref(loop))
            return False
        for standing in position.open:
            if standing.number == loop.number:
                loop.epoch = standing.epoch - 1
                self.begun = standing.begun
                self._open.append(weakref.ref(loop))
                if standing is position.open[-1] and standing.begun == position.begun:
                    self.entering = None
                return True
        if loop.number < position.begun:
            # It had ended; only one that has more epochs now goes on.
            has_more = (
                loop.number == position.begun - 1 and position.last is not None and loop.count > position.last
            )
            loop.epoch = position.last - 1 if has_more and position.last is not None else loop.count
            if loop.number == position.begun - 1:
                self.entering = None
            self._open.append(weakref.ref(loop))
            return True  # what comes behind it may need what it made
        self.entering = None
        self._open.append(weakref.ref(loop))
        return True

    def next_epoch(self, loop: Epochs) -> bool:
        """Its next body begins; False where there is none."""
        loop.epoch += 1
        loop.begun = self.begun
        if loop.epoch < loop.count:
            return True
        self.end(loop)
        return False

    def end(self, loop: Epochs) -> None:
        """It is over."""
        loop.end()
        self._open = [ref for ref in self._open if ref() not in (None, loop)]

    def standing(self, *, ended: Epochs | None = None) -> tuple[Standing, ...]:
        """Where the open loops stand.

        Args:
            ended: the loop whose body has just ended.
        """
        found = []
        for loop in self.open:
            if loop is ended:
                if loop.epoch + 1 < loop.count:
                    found.append(Standing(number=loop.number, epoch=loop.epoch + 1, begun=self.begun))
                break
            found.append(Standing(number=loop.number, epoch=loop.epoch, begun=loop.begun))
        return tuple(found)
