"""The object ``train``: what a cell can ask and tell. In a file: ``from jupyter_train import train``.

Outside a run it is rank 0 of 1 and keeps what it logs in ``train.history``.
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

    from jupyter_train.runtime.checkpoint.checkpoints import Checkpoints
    from jupyter_train.runtime.recorder import Recorder

T = TypeVar("T")

PROGRESS_INTERVAL_S = 0.1
_STEPS = 2**63  #: a step is kept in 64 bits


class Collectives(Protocol):
    """What ``train`` needs of the data parallel layer; every rank has to call it."""

    def sum(self, value: Any) -> Any:
        """The sum over the ranks."""

    def mean(self, value: Any) -> Any:
        """The mean over the ranks."""

    def gather(self, value: Any) -> list[Any]:
        """The ranks' values, by rank."""


class Watches(Protocol):
    """Who follows the training loop: `jupyter_train.runtime.observe.Observer`."""

    step: int  #: optimizer steps done

    @property
    def should_stop(self) -> bool:
        """A stop was asked for and agreed. Whoever reads it ends the loop by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the cell runs: one rank of a run, with all that ``train`` speaks to."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    params: Mapping[str, Any]
    recorder: Recorder
    observer: Watches
    collectives: Collectives
    checkpoints: Checkpoints | None = None  #: None: nothing is kept, and nothing gone on with


class Train:
    """See the module. Every attribute may be used from any thread."""

    def __init__(self) -> None:
        self._place: Place | None = None
        self._logged = 0
        #: outside a run: metric → (step, value) in the order in which they were logged
        self.history: dict[str, list[tuple[int, float]]] = {}

    def __repr__(self) -> str:
        return f"<train: rank {self.rank} of {self.world_size}>"

    def enter(self, place: Place) -> None:
        """Speak for a rank from now on. Called once, by the rank's process."""
        self._place = place

    @property
    def rank(self) -> int:
        """Number of this process among those of the run, from 0."""
        return self._place.rank if self._place else 0

    @property
    def world_size(self) -> int:
        """How many ranks the run has."""
        return self._place.world_size if self._place else 1

    @property
    def local_rank(self) -> int:
        """Number of this process among the run's ranks on this host, from 0."""
        return self._place.local_rank if self._place else 0

    @property
    def device(self) -> torch.device:
        """Where this rank computes: its GPU, else the CPU."""
        if self._place:
            return self._place.device
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def params(self) -> Mapping[str, Any]:
        """The values given with ``-p KEY=VALUE``."""
        return MappingProxyType(dict(self._place.params)) if self._place else MappingProxyType({})

    @property
    def should_stop(self) -> bool:
        """Whether an interrupt, ``%train stop`` or the time-out asked for an end; the same on all ranks at one step.

        A cell that reads it ends its loop by itself, in its own time: up to 2 s, as everything that is to stop.
        """
        return self._place.observer.should_stop if self._place else False

    def log(self, step: int | None = None, **metrics: float | torch.Tensor) -> None:
        """Record numbers or tensors with one element, under their names.

        Costs a microsecond or two and never waits for the device. NaN and infinity are values.

        Args:
            step: where they belong on the curve; without it, the optimizer steps done so far.
            metrics: one value per curve.

        Raises:
            TypeError: a value is not one number, or ``step`` is not a whole one.
            OverflowError: ``step`` does not fit into 64 bits.
        """
        if step is not None and (type(step) is not int or not -_STEPS <= step < _STEPS):
            step = _whole(step)
        place = self._place
        if place is None:
            self._keep(step, metrics)
            return
        at = place.observer.step if step is None else step
        record = place.recorder.metric
        for name, value in metrics.items():
            try:
                record(name, value, at)
            except TypeError as error:
                raise TypeError(f"train.log({name}=...) got {error}") from None

    def sum(self, value: Any) -> Any:
        """The sum of ``value`` (a number, tensor or array) over the ranks, on every rank. Every rank has to call it."""
        return self._place.collectives.sum(value) if self._place else value

    def mean(self, value: Any) -> Any:
        """The mean of ``value`` (a number, tensor or array) over the ranks, on every rank. Every rank has to call it."""
        return self._place.collectives.mean(value) if self._place else value

    def gather(self, value: T) -> list[T]:
        """``value`` of every rank (anything small that pickles), by rank. Every rank has to call it."""
        return self._place.collectives.gather(value) if self._place else [value]

    def epochs(self, count: int) -> Iterable[int]:
        """The numbers of ``count`` epochs, from 0; a run that goes on from a checkpoint goes on where that stood.

            for epoch in train.epochs(10):
                for x, y in loader: ...

        Raises:
            TypeError, ValueError: ``count`` is no number of epochs.
        """
        if self._place is not None and self._place.checkpoints is not None:
            return self._place.checkpoints.epochs(count)
        try:
            return range(max(operator.index(count), 0))
        except TypeError:
            raise TypeError(f"train.epochs({count!r}): the number of epochs is a whole number") from None

    def checkpoint(self, keep_last: int | None = None, best: str | None = None, **state: Any) -> None:
        """Keep what the run can go on from; every rank has to call it, at the same place.

        Everything with a state that the loop's names lead to is kept by itself. It is kept as it is at the end of
        the loop's body, in the background: the loop waits for a copy, not for the disk. Outside a run nothing is kept.

        Args:
            keep_last: so many of the newest ones stay; without it, as the run is set up.
            best: the metric by whose newest logged value the best one stays, too: ``"val_loss"``,
                ``"max accuracy"`` (without ``min`` or ``max`` the smallest is best).
            state: what is to be found under its name in ``Run.checkpoints``: models, optimizers, plain values.

        Raises:
            TypeError, ValueError: an argument is not as documented.
        """
        if self._place is not None and self._place.checkpoints is not None:
            self._place.checkpoints.checkpoint(keep_last, best, state)

    def progress(
        self, iterable: Iterable[T], label: str | None = None, total: int | None = None
    ) -> Progress[T]:
        """``iterable``, with a progress bar in the view of the run.

        Args:
            iterable: what the loop goes over.
            label: what the bar is called.
            total: how many items there will be, where ``len(iterable)`` cannot tell.
        """
        caller = sys._getframe(1)
        bar = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        return Progress(
            iterable,
            bar=bar,
            label="" if label is None else str(label),
            total=_length(iterable) if total is None else int(total),
            recorder=self._place.recorder if self._place else None,
        )

    def _keep(self, step: int | None, metrics: Mapping[str, Any]) -> None:
        from jupyter_train.runtime.values import resolve, snapshot

        for name, value in metrics.items():
            try:
                number = resolve([snapshot(value)])[0]
            except TypeError as error:
                raise TypeError(f"train.log({name}=...) got {error}") from None
            self.history.setdefault(name, []).append((self._logged if step is None else step, number))
        self._logged += 1


class Progress(Iterable[T]):
    """An iterable that tells how far it is. A loop that is entered again starts its bar again."""

    def __init__(
        self, iterable: Iterable[T], *, bar: str, label: str, total: int | None, recorder: Recorder | None
    ) -> None:
        self._iterable = iterable
        self._bar = bar
        self._label = label
        self._total = total
        self._recorder = recorder

    def __len__(self) -> int:
        return len(self._iterable)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[T]:
        # Not in the generator: whoever looks which line begins the loop finds the cell's frame above this one.
        iterator = iter(self._iterable)
        return iterator if self._recorder is None else self._told(iterator, self._recorder)

    def _told(self, iterator: Iterator[T], recorder: Recorder) -> Iterator[T]:
        done = 0
        due = 0.0
        for item in iterator:
            if (now := time.monotonic()) >= due:
                due = now + PROGRESS_INTERVAL_S
                recorder.progress(self._bar, self._label, done, self._total)
            yield item
            done += 1
        recorder.progress(self._bar, self._label, done, self._total)


def _length(iterable: Iterable[Any]) -> int | None:
    try:
        return len(iterable)  # type: ignore[arg-type]
    except TypeError:
        return None


def _whole(step: Any) -> int:
    try:
        whole = operator.index(step)
    except TypeError:
        raise TypeError(
            f"train.log(step=...) got {step!r}; a step is a whole number, such as the batches done"
        ) from None
    if not -_STEPS <= whole < _STEPS:
        raise OverflowError(f"train.log(step=...) got {whole}; a step has at most 64 bits")
    return whole


train = Train()
