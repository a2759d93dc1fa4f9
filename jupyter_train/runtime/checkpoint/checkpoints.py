"""When a rank keeps a checkpoint, and where it goes on from one: what stands behind ``train.epochs`` and ``train.checkpoint``.

A call of ``train.checkpoint`` asks. The state is that at the end of the loop's
body: it is taken when the loop over the data asks for its next batch, or the
loop over the epochs for its next one, so that nothing is lost or done twice.
Main thread of a rank process, throughout.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from jupyter_train.runtime.checkpoint.epochs import Epochs, Loops, whole_number
from jupyter_train.runtime.checkpoint.finding import (
    Found,
    find,
    is_container,
    is_plain,
    is_shared,
    is_trained,
)
from jupyter_train.runtime.checkpoint.frames import MAIN, Scope, scopes
from jupyter_train.runtime.checkpoint.iterators import Iterators
from jupyter_train.runtime.checkpoint.passes import Passes
from jupyter_train.runtime.checkpoint.position import PassStanding, Position, position_of
from jupyter_train.runtime.checkpoint.restoring import BEGAN, ENGINE, ITERATORS, RANDOM, Restoring
from jupyter_train.runtime.checkpoint.state import Snapshot
from jupyter_train.runtime.checkpoint.unchanged import Unchanged

if TYPE_CHECKING:
    from jupyter_train.record.checkpoint import ResumePoint
    from jupyter_train.runtime.checkpoint.reader import Saved
    from jupyter_train.runtime.parallel.engine import Engine

SMALL_ITEMS = 1_000_000
LEAST_S = 2.0  #: between checkpoints at the ends of epochs that nobody asked for


class Keeps(Protocol):
    """Who copies and writes: `jupyter_train.runtime.checkpoint.keeping.Keeping`."""

    def keep(self, snapshot: Snapshot) -> None:
        """Copy it; the disk is a thread's affair."""


class Curves(Protocol):
    """The newest value of each metric that the cell logged."""

    def newest(self, name: str) -> float | None:
        """None where it was never logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A checkpoint that was asked for and is not taken yet."""

    given: Mapping[str, Any] = field(default_factory=dict)
    keep_last: int | None = None
    best: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """Checkpoints that come by themselves, in loops over ``train.epochs``."""

    every_s: float | None = None  #: None: none do
    by_default: bool = False  #: the user did not ask for them: a call of the cell's own ends them


class Checkpoints:
    """See the module.

    Args:
        saved: what the attempt begins from, read; with ``point``, which says where it is.
        keeping: None: nothing is kept, as in the process that proves a run.
        newest: the newest logged value of a metric.
        arrived: called when the place is reached from which the attempt goes on.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        keeping: Keeps | None,
        rhythm: Rhythm,
        remark: Callable[[str], None],
        newest: Callable[[str], float | None],
        saved: Saved | None = None,
        point: ResumePoint | None = None,
        number: int = 0,
        arrived: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._keeping = keeping
        self._rhythm = rhythm
        self._remark = remark
        self._newest = newest
        self._arrived = arrived
        self._clock = clock
        self._number = number  #: of the newest checkpoint
        self._wish: Wish | None = None
        self._last = clock()
        self._has_kept = False
        self._unchanged = Unchanged()
        self._said: set[str] = set()
        self._restoring: Restoring | None = None
        position = None
        if saved is not None and point is not None:
            position = position_of(saved.position)
            if saved.world_size != engine.ranks:
                position = position.for_other_ranks()
                self._say(
                    f"the checkpoint was made by {saved.world_size} ranks: this run goes on from the same place, and random "
                    "numbers are drawn otherwise from there on"
                )
            if position.begun:
                self._restoring = Restoring(
                    saved, given=position.given, where=f"checkpoint {point.number} of run {point.run_id}"
                )
            else:
                position = None
                self._say("the checkpoint was made outside of train.epochs, so the cell begins at its start")
        self._loops = Loops(position)
        self._position = position
        self._iterators = Iterators(engine, self._say)
        self._passes = Passes(engine, asks=self._batch_ends, loads=self._load_at_batch)

    @property
    def has_arrived(self) -> bool:
        """The attempt began at the start, or has come to the place that it goes on from."""
        return self._restoring is None

    # -- for the cell, through ``train``

    def epochs(self, count: Any) -> Epochs:
        """The loop ``for epoch in train.epochs(count)``.

        Raises:
            TypeError, ValueError: it is no number of epochs.
        """
        self._engine.watch(self._passes)
        return Epochs(self, whole_number(count))

    def checkpoint(self, keep_last: int | None, best: str | None, given: Mapping[str, Any]) -> None:
        """Ask for a checkpoint; every rank does, at the same place.

        Raises:
            TypeError, ValueError: an argument is not as documented.
            RanksDiverged: not all ranks do.
        """
        _check(keep_last, best)
        self._engine.watch(self._passes)
        self._engine.meet()
        self._rhythm = Rhythm() if self._rhythm.by_default else self._rhythm
        self._wish = Wish(
            given={name: _as_it_is(one) for name, one in given.items()}, keep_last=keep_last, best=best
        )
        if not self._loops.open and self._loops.entering is None:
            self._take(self._frame(), ended=None)

    # -- for the engine

    def is_due(self) -> bool:
        """The clock of this rank asks for one; looked at on rank 0."""
        every_s = self._rhythm.every_s
        if every_s is None or not self._loops.open or self._wish is not None:
            return False
        return self._clock() - self._last >= every_s

    def agreed(self) -> None:
        """All ranks know by now that rank 0's clock has asked for one."""
        if self._wish is None:
            self._wish = Wish()

    # -- loops over epochs

    def next_epoch(self, loop: Epochs) -> int:
        """The next epoch of ``loop``; what its last body asked for is kept first."""
        frame = self._frame()
        if loop.number < 0:
            self._begin(loop, frame)
        else:
            if self._passes.body_ends():
                self._say(
                    "the checkpoint stands in the middle of an epoch, in a loop over a DataLoader that this cell does not "
                    "have there: that epoch was done from its start"
                )
                self._has_arrived()
            self._epoch_ends(loop, frame)
        if not self._loops.next_epoch(loop):
            raise StopIteration
        self._passes.body_begins()
        return loop.epoch

    def left(self, loop: Epochs) -> None:
        """It was left by ``break``, or by an error."""
        frame = loop.frame
        if self._wish is not None and frame is not None and _is_left_by_break(frame):
            loop.epoch, loop.is_left = loop.count, True
            self._take(frame, ended=loop)
        self._loops.end(loop)

    def _begin(self, loop: Epochs, frame: FrameType | None) -> None:
        from jupyter_train.runtime.parallel.loops import body_of

        loop.frame = frame
        if not self._loops.begun:
            loop.body = None if frame is None else body_of(frame)
            found = find(self._scopes(frame, loop))
            self._unchanged.note(one for one in found.values() if not is_trained(one))
        # Behind an earlier loop all names of the code count: what was done between them would be done otherwise now.
        loads = self._loops.begin(loop)
        if loads and self._restoring is not None and self._position is not None:
            self._load(self._restoring, frame)
            if self._loops.entering is None:
                if loop.epoch + 1 > loop.count and self._position.open:
                    self._say(
                        f"the checkpoint stands in epoch {loop.epoch + 1} (from 0), and this loop has {loop.count}: nothing was "
                        "left to do"
                    )
                    self._has_arrived()
                elif self._position.is_mid_epoch and loop.epoch + 1 < loop.count:
                    self._passes.enter(self._position.passes, self._restoring.ours(BEGAN))
                else:
                    self._has_arrived()

    def _epoch_ends(self, loop: Epochs, frame: FrameType | None) -> None:
        if self._rhythm.by_default and self._engine.ranks > 1 and not self._engine.is_alike:
            self._wish = (
                self._wish or Wish()
            )  # each rank may train something else, and has nobody to wait for
        elif self._wish is None and self._rhythm.every_s is not None:
            since_s = self._clock() - self._last
            least_s = min(LEAST_S, self._rhythm.every_s) if self._rhythm.by_default else self._rhythm.every_s
            if self._engine.agree(since_s >= least_s or (self._rhythm.by_default and not self._has_kept)):
                self._wish = Wish()
        if self._wish is not None:
            self._take(frame, ended=loop)

    # -- loops over data

    def _batch_ends(self, passes: tuple[PassStanding, ...]) -> None:
        """The first loop over a loader in the body of an epoch asks for its next batch."""
        if self._wish is not None and self._loops.open:
            self._take(self._frame(), ended=None, passes=passes)

    def _load_at_batch(self) -> None:
        """The pass that a checkpoint stood in is where it was: it hands out its next batch."""
        if self._restoring is not None:
            self._load(self._restoring, self._frame())
            self._has_arrived()

    def _has_arrived(self) -> None:
        restoring, self._restoring = self._restoring, None
        if restoring is None:
            return
        self._last = self._clock()
        self._arrived()
        missing = restoring.missing
        if missing:
            self._say(
                f"the checkpoint also holds {', '.join(map(_in_words, missing[:5]))}{', …' if len(missing) > 5 else ''}, "
                "which the cell does not have here: that is not set back"
            )

    # -- taking and loading

    def _frame(self) -> FrameType | None:
        return self._engine.sites.frame(3)

    def _scopes(self, frame: FrameType | None, loop: Epochs | None = None) -> list[Scope]:
        outermost = next(iter(self._loops.open), loop)
        end = outermost.frame if outermost is not None else frame
        frames: list[FrameType] = []
        while frame is not None:
            frames.insert(0, frame)
            if frame is end:
                break
            frame = self._engine.sites.outer(frame)
        return scopes(frames, outermost.body if outermost is not None else None)

    def _take(
        self, frame: FrameType | None, *, ended: Epochs | None, passes: tuple[PassStanding, ...] = ()
    ) -> None:
        wish, self._wish = self._wish or Wish(), None
        self._number += 1
        self._last = self._clock()
        self._has_kept = True
        if self._keeping is None:
            return
        found = find(self._scopes(frame, ended), self._unchanged)
        self._keeping.keep(self._snapshot(wish, found, ended, passes))

    def _snapshot(
        self, wish: Wish, found: Found, ended: Epochs | None, passes: tuple[PassStanding, ...]
    ) -> Snapshot:
        engine = self._engine
        shared: dict[str, Any] = {}
        own: dict[str, Any] = {}
        given: dict[str, str] = {}
        for name, value in wish.given.items():
            shared[name] = value
            label = found.label_of(value)
            if label is not None:
                given[label] = name
            elif not is_plain(value):
                self._say(
                    f"train.checkpoint({name}=...): the loop does not lead to this {type(value).__name__} by its names, so "
                    "it is kept but not set back by itself"
                )
        values = {**found.objects, **{label: one.value for label, one in found.variables.items()}}
        for label, value in values.items():
            if label not in given:
                (shared if engine.is_alike and is_shared(value) else own)[label] = value
        own[ENGINE] = engine.state(found.objects)
        own[RANDOM] = engine.random_states()
        if found.iterators:
            own[ITERATORS] = self._iterators.state(found)
        if passes:
            own[BEGAN] = self._passes.began
        standing = self._loops.standing(ended=ended)
        is_done = ended is not None and ended.number == self._loops.begun - 1 and not ended.is_left
        position = Position(
            last=ended.count if is_done and ended is not None and ended.epoch + 1 >= ended.count else None,
            open=standing,
            begun=self._loops.begun,
            passes=passes,
            given=given,
        )
        metric = {}
        if wish.best is not None:
            name = wish.best.split()[-1]
            value = self._newest(name)
            if value is None:
                self._say(
                    f"train.checkpoint(best={wish.best!r}): nothing was logged as {name!r}, so it is not ranked"
                )
            else:
                metric[name] = value
        epoch = standing[-1].epoch if standing else None
        if epoch is None and self._loops.begun:
            epoch = 0 if ended is None else ended.count
        return Snapshot(
            number=self._number,
            step=engine.step,
            epoch=epoch,
            batch=passes[0].done if passes else 0,
            position=position.to_plain(),
            shared=shared,
            own=own,
            names=tuple(wish.given),
            metric=metric,
            keep_last=wish.keep_last,
            best=wish.best,
        )

    def _load(self, restoring: Restoring, frame: FrameType | None) -> None:
        found = find(self._scopes(frame))
        self._iterators.go_on(restoring.ours(ITERATORS) or {}, found)
        restoring.load(found)
        assert self._position is not None
        self._engine.set_state(restoring.ours(ENGINE), found.objects)
        self._engine.set_random_states(restoring.ours(RANDOM))

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._remark(text)


def _check(keep_last: Any, best: Any) -> None:
    if keep_last is not None and (
        not isinstance(keep_last, int) or isinstance(keep_last, bool) or keep_last < 1
    ):
        raise ValueError(
            f"train.checkpoint(keep_last={keep_last!r}): how many to keep is a whole number from 1"
        )
    if best is None:
        return
    words = best.split() if isinstance(best, str) else []
    if not (len(words) == 1 or (len(words) == 2 and words[0] in ("min", "max"))):
        raise ValueError(
            f'train.checkpoint(best={best!r}): name a metric that is logged, as "val_loss" or "max accuracy"'
        )


def _as_it_is(value: Any) -> Any:
    """A value given to ``train.checkpoint``, as it is at the call; what has a state of its own is taken later."""
    if is_container(value) and is_plain(value):
        return copy.deepcopy(value)
    return value


def _is_left_by_break(frame: FrameType) -> bool:
    """The loop in ``frame`` is left by ``break`` or ``return``, not by an error: what drops it is a plain pop."""
    import opcode

    return opcode.opname[frame.f_code.co_code[frame.f_lasti]] in ("POP_TOP", "POP_ITER")


def _in_words(label: str) -> str:
    return ".".join(label.removeprefix(f"{MAIN}/").split("/")) or label
