"""The loops over loaders in the body of an epoch: in which of them a checkpoint may stand, and how it is entered again."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import torch

from jupyter_train.runtime.checkpoint.counting import advance_counters
from jupyter_train.runtime.checkpoint.finding import find_in
from jupyter_train.runtime.checkpoint.position import PassStanding

if TYPE_CHECKING:
    from jupyter_train.runtime.parallel.engine import Engine

_DRAWS = ("generator", "sampler", "batch_sampler")  #: what a loader's batches are drawn by


class AnyPass(Protocol):
    """One pass over a loader."""

    done: int  #: batches that it has handed out
    began: Mapping[str, Any] | None  #: from which random states; None: before the loop over the epochs

    def standing(self) -> PassStanding:
        """Where it stands, before it hands out its next batch."""

    def skip(self) -> None:
        """Leave out a batch; called after it has begun, and before it hands out any."""

    def stand(self, standing: PassStanding) -> None:
        """All that are done were left out."""


class Passes:
    """Follows the passes of one rank. Main thread.

    Only the first loop over a loader in a body can be entered in its middle:
    what comes before a later one would have to be done again.

    Args:
        asks: called with where the passes of that loop stand, before its next batch.
        loads: called when that loop has been entered, before its first batch.
    """

    def __init__(
        self, engine: Engine, *, asks: Callable[[tuple[PassStanding, ...]], None], loads: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._asks = asks
        self._loads = loads
        self._in_body = False
        self._place: tuple[Any, int] | None = None  #: instruction at which the first loop began
        self._first: list[weakref.ref[Any]] = []  #: its passes: several where loaders are zipped
        self._started = False  #: it was asked for a batch
        self._is_past = False  #: that loop has ended, or another one has begun
        self._entering: list[PassStanding] = []
        self._entered = 0  #: passes of the loop that is entered
        self._begins_from: Mapping[str, Any] | None = None
        self.began: dict[str, Any] = {}  #: random states when the first loop began
        self._began: dict[str, Any] | None = None  #: when the newest pass did

    # -- as the epochs go on

    def body_begins(self) -> None:
        """The body of an epoch begins."""
        self._in_body, self._place, self._started, self._is_past = True, None, False, False
        self._first = []
        self.began = {}

    def body_ends(self) -> bool:
        """It has ended; gives whether the loop that was to be entered did not come."""
        self._is_past = True
        missed, self._entering = bool(self._entering), []
        return missed

    def enter(self, standings: tuple[PassStanding, ...], began: Mapping[str, Any] | None) -> None:
        """The first loop of the next body goes on where ``standings`` say, from what was random when it began."""
        self._entering, self._entered, self._begins_from = list(standings), 0, began

    # -- as passes do

    def begins(self, frame: FrameType, loader: Any) -> PassStanding | None:
        """A pass over ``loader`` is about to begin in ``frame``: where it is to go on; None: at its start."""
        self._began = None
        if not self._in_body:
            return None
        self._began = {"random": self._engine.random_states(), "drawn_by": drawn_by(loader)}
        if self._is_past:
            return None
        place = (frame.f_code, frame.f_lasti)
        if self._place is not None and (place != self._place or self._started):
            self._is_past = True
            return None
        number = len(self._first)
        if self._place is None:
            self._place = place
            if self._entering and self._begins_from is not None:
                self._engine.set_random_states(self._begins_from["random"])
            self.began = {"random": self._engine.random_states(), "drawn_by": []}
        if self._entering and self._begins_from is not None and number < len(self._begins_from["drawn_by"]):
            set_back(loader, self._begins_from["drawn_by"][number])
        self.began["drawn_by"].append(drawn_by(loader))
        if number < len(self._entering):
            return self._entering[number]
        return None

    def begins_again(self, loader: Any) -> None:
        """What was drawn since it began does not count."""
        if self._begins_from is not None:
            self._engine.set_random_states(self._begins_from["random"])
            set_back(loader, self.began["drawn_by"][-1])

    def begun(self, frame: FrameType, one: AnyPass) -> None:
        """It has, and is at the place that it was told."""
        one.began = self._began
        if self._in_body and not self._is_past and (frame.f_code, frame.f_lasti) == self._place:
            self._first.append(weakref.ref(one))

    def next(self, one: AnyPass) -> None:
        """``one`` is asked for its next batch."""
        if self._is_past or not self._first:
            return
        passes = [ref() for ref in self._first]
        if passes[0] is not one:
            return
        self._started = True
        if self._entering:
            entered, self._entering = self._entering, []
            self._begins_from = None
            self._go_on([each for each in passes if each is not None], entered)
            advance_counters(one, entered[0].done)
            self._loads()
        elif all(each is not None for each in passes):
            self._asks(tuple(each.standing() for each in passes if each is not None))

    def _go_on(self, passes: list[Any], standings: list[PassStanding]) -> None:
        """Behind the batches that are done; in turns, as they were drawn."""
        for number in range(max(standing.done for standing in standings)):
            for each, standing in zip(passes, standings, strict=False):
                if number < standing.done:
                    each.skip()
        for each, standing in zip(passes, standings, strict=False):
            each.stand(standing)

    def ended(self, one: AnyPass) -> None:
        """``one`` has no more batches, or was left."""
        if any(ref() is one for ref in self._first):
            self._is_past = True


def drawn_by(loader: Any) -> dict[str, Any]:
    """The state of what the batches of ``loader`` are drawn by."""
    found = find_in({name: getattr(loader, name, None) for name in _DRAWS})
    states: dict[str, Any] = {
        label: one.get_state() for label, one in found.objects.items() if isinstance(one, torch.Generator)
    }
    states.update({label: copy.deepcopy(one.value) for label, one in found.variables.items()})
    return states


def set_back(loader: Any, states: Mapping[str, Any]) -> None:
    found = find_in({name: getattr(loader, name, None) for name in _DRAWS})
    for label, one in found.objects.items():
        if label in states and isinstance(one, torch.Generator):
            one.set_state(states[label])
    for label, variable in found.variables.items():
        if label in states:
            variable.assign(copy.deepcopy(states[label]))
