"""Curves with no logging call: loss, learning rate, step time and samples per second, seen from outside the cell.

Stands around ``torch.autograd.backward`` and ``Optimizer.step`` for the length
of a cell, for every strategy and also on one rank, where it is all that is
patched. Main thread of a rank process. Values on a device are handed on as
tensors and not synchronised.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.sites import Site, Sites, loss_name
from jupyter_train.runtime.stopping import StopFlag, StopRun

if TYPE_CHECKING:
    import torch

_SPREAD = 0x4F1B  #: odd, so that neighbouring numbers of steps never look alike
MANUAL_AFTER = 64  #: backwards without any optimizer step: the cell updates its weights by hand


class MetricSink(Protocol):
    """The part of the recorder that is used here."""

    def metric(self, name: str, value: Any, step: int) -> None:
        """Record ``value``, a float or a 0-d tensor, at ``step``."""

    def remark(self, text: str) -> None:
        """Tell the user one sentence."""


class BackwardReducer(Protocol):
    """What data parallel does around a backward."""

    def backward(
        self, original: Callable[..., None], site: Site, tensors: Any, arguments: tuple[Any, ...]
    ) -> Any:
        """Run ``original`` with gradients made those of one process; returns the global loss or None."""

    def nested(self) -> None:
        """Another backward runs inside the one under way (a reentrant checkpoint)."""


class BackwardWitness(Protocol):
    """Keeps samples of the first backwards, see `jupyter_train.runtime.proof`."""

    def backward(self, site: Site, tensors: Any, loss: Any) -> None:
        """A backward is done, and its gradients are those that the cell will use."""


class Observer:
    """Counts steps and records what a training loop shows of itself.

    Args:
        recorder: where metrics go.
        stop: this rank's stop flag. Without data parallel it is obeyed as it is;
            with it, ``stop_agreed`` is set by the gradient reduction.
        cell_file: the file name under which the cell was compiled.
    """

    def __init__(self, recorder: MetricSink, stop: StopFlag, cell_file: str) -> None:
        self.recorder = recorder
        self.stop = stop
        self.cell_file = cell_file
        self.step = 0  #: optimizer steps done
        self.stop_agreed = False  #: all ranks know of the stop
        self.rates_key = 0  #: 15 bits of the learning rates of the newest step
        self.reducer: BackwardReducer | None = None
        self.witness: BackwardWitness | None = None
        self.shares_curves = False  #: losses are global: rank 0 records them for all
        self.rank = 0
        self._polled = False
        self._inside = False
        self._patches: Patches | None = None
        self._sites: Sites | None = None
        self._names: dict[Site, str] = {}
        self._optimizers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._pending: dict[str, list[Any]] = {}
        self._backwards = 0
        self._stepped = False
        self._manual = False
        self._in_step: list[int] = []  #: optimizers whose step is under way, by id
        self._fetches = 0  #: of loaders, since the last step
        self._fetch_began = 0.0
        self._step_began = 0.0
        self._last_step = 0.0
        self._samples = 0
        self._batch = 0

    # -- lifetime

    @property
    def sites(self) -> Sites:
        """The lines of the user's code, once attached."""
        if self._sites is None:
            self._sites = Sites(self.cell_file)
        return self._sites

    def attach(self) -> None:
        """Stand around torch's backward and every optimizer's step."""
        import torch
        from torch.optim.optimizer import (
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        if self._patches is not None:
            return
        self._patches = patches = Patches()
        patches.replace(torch.autograd, "backward", self._wrapped(torch.autograd.backward))
        if self.reducer is None:
            self._watch_loaders(patches)
        before = register_optimizer_step_pre_hook(self._before_step)
        after = register_optimizer_step_post_hook(self._after_step)
        patches.on_undo(before.remove)
        patches.on_undo(after.remove)
        self._last_step = time.monotonic()

    def close(self) -> None:
        """Leave torch as it was. Losses that no optimizer step followed are recorded first."""
        if self._patches is not None:
            self._patches.undo()
            self._patches = None
            if not self._stepped:
                self._spread_pending()

    # -- for checkpoints

    def counts(self, objects: Mapping[str, Any]) -> dict[str, Any]:
        """What is counted and not written down yet, as plain values; optimizers by their labels."""
        labels = {id(one): label for label, one in objects.items()}
        return {
            "step": self.step,
            "rates_key": self.rates_key,
            "backwards": self._backwards,
            "stepped": self._stepped,
            "manual": self._manual,
            "samples": self._samples,
            "pending": {name: [float(one) for one in values] for name, values in self._pending.items()},
            "optimizers": {labels[id(one)]: n for one, n in self._optimizers.items() if id(one) in labels},
        }

    def set_counts(self, counts: Mapping[str, Any], objects: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.step = int(counts["step"])
        self.rates_key = int(counts["rates_key"])
        self._backwards = int(counts["backwards"])
        self._stepped, self._manual = bool(counts["stepped"]), bool(counts["manual"])
        self._samples = int(counts["samples"])
        self._pending = {name: list(values) for name, values in counts["pending"].items()}
        for label, number in counts["optimizers"].items():
            if label in objects:
                self._optimizers[objects[label]] = int(number)

    # -- stop

    @property
    def should_stop(self) -> bool:
        """A stop was asked for; in data parallel the same on all ranks after a backward.

        Whoever reads it ends the loop by itself: the optimizer step no longer
        raises StopRun.
        """
        self._polled = True
        return self._must_stop()

    @property
    def pace_key(self) -> int:
        """15 bits of how many optimizer steps were done and at which learning rates: the same on ranks that are in step."""
        return (self.rates_key ^ self.step * _SPREAD) & 0x7FFF

    def agree_to_stop(self) -> None:
        """All ranks know by now that a stop was asked for: after the same backward."""
        self.stop_agreed = True

    def _must_stop(self) -> bool:
        return self.stop_agreed or (self.stop.requested and not self.shares_curves)

    # -- backward

    def _wrapped(self, original: Callable[..., None]) -> Callable[..., None]:
        def backward(
            tensors: Any,
            grad_tensors: Any = None,
            retain_graph: bool | None = None,
            create_graph: bool = False,
            grad_variables: Any = None,
            inputs: Any = None,
        ) -> None:
            arguments = (grad_tensors, retain_graph, create_graph, grad_variables, inputs)
            if self._inside:
                if self.reducer is not None:
                    self.reducer.nested()
                return original(tensors, *arguments)
            self._inside = True
            try:
                site = self.sites.here()
                loss = None
                if self.reducer is None:
                    original(tensors, *arguments)
                else:
                    loss = self.reducer.backward(original, site, tensors, arguments)
            finally:
                self._inside = False
            if self.witness is not None:
                self.witness.backward(site, tensors, loss)
            self._loss(site, tensors, loss)
            return None

        return backward

    def _loss(self, site: Site, tensors: Any, value: Any) -> None:
        if not self._pending:
            self._step_began = self._began()
        self._backwards += 1
        if not self._in_step:
            self._samples += self._batch
            self._batch = 0
        if value is None:
            root = tensors if hasattr(tensors, "numel") else (tensors[0] if len(tensors) == 1 else None)
            if root is None or root.numel() != 1:
                self._pending.setdefault("", [])
                return
            value = root.detach() if root.device.type != "cpu" else root.item()
        name = self._names.get(site)
        if name is None:
            name = self._names[site] = loss_name(site.text)
        if self._manual:
            self.step += 1
            self._record(name, value)
            return
        self._pending.setdefault(name, []).append(value)
        if self._backwards >= MANUAL_AFTER and not self._stepped:
            self._manual = True
            self._spread_pending()

    def _began(self) -> float:
        """When the step under way began: at the end of the last one, unless there was a validation or a new pass between."""
        follows = self._stepped and self._fetches <= 1
        return self._last_step if follows or not self._fetches else self._fetch_began

    def _spread_pending(self) -> None:
        """Each pending loss a step of its own: there is no optimizer to count."""
        longest = max((len(values) for values in self._pending.values()), default=0)
        for at in range(longest):
            self.step += 1
            for name, values in self._pending.items():
                if at < len(values):
                    self._record(name, values[at])
        self._pending = {}

    def _record(self, name: str, value: Any) -> None:
        if self.rank == 0 or not self.shares_curves:
            self.recorder.metric(name, value, self.step)

    # -- data

    def _watch_loaders(self, patches: Patches) -> None:
        """Count samples where no one cuts them; whoever cuts says how many there are on all ranks."""
        from torch.utils.data.dataloader import _BaseDataLoaderIter

        original = _BaseDataLoaderIter.__next__

        def __next__(loader: Any) -> Any:
            self.fetching()
            batch = original(loader)
            self.fetched(_samples(batch))
            return batch

        patches.replace(_BaseDataLoaderIter, "__next__", __next__)

    def fetching(self) -> None:
        """A loader is asked for its next batch."""
        self._fetches += 1
        self._fetch_began = time.monotonic()

    def fetched(self, samples: int) -> None:
        """It came, with so many samples (over all ranks where the loss is global)."""
        self._batch = samples

    # -- optimizer

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if id(optimizer) in self._in_step:  # an earlier step of it ended by an exception
            self._in_step = []
        self._in_step.append(id(optimizer))

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._in_step:
            self._in_step.pop()
        if self._in_step:
            return  # an optimizer that wraps another: one step
        now = time.monotonic()
        self.step += 1
        if not self._stepped:
            self._stepped = True
            self._manual = False
        for name, values in self._pending.items():
            if values:
                self._record(name, values[0] if len(values) == 1 else sum(values) / len(values))
        self._rates(optimizer)
        if self._pending:
            took = now - self._step_began
            self.recorder.metric("step_time_s", took, self.step)
            if self._samples and took > 0:
                self._record("samples_per_s", self._samples / took)
        self._pending = {}
        self._samples = 0
        self._last_step = now
        self._fetches = 0
        if not self._polled and self._must_stop():
            raise StopRun

    def _rates(self, optimizer: torch.optim.Optimizer) -> None:
        rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
        if not rates:
            return
        number = self._optimizers.setdefault(optimizer, len(self._optimizers) + 1)
        name = "lr" if number == 1 else f"lr ({number})"
        if all(type(rate) is float for rate in rates):
            self.rates_key = hash(tuple(rates)) & 0x7FFF
        if all(rate is rates[0] or float(rate) == float(rates[0]) for rate in rates):
            self._record(name, rates[0])
        else:
            for group, rate in enumerate(rates):
                self._record(f"{name}/{group}", rate)


def _samples(batch: Any, depth: int = 4) -> int:
    """Length of the first tensor in ``batch``; 0 where there is none."""
    if hasattr(batch, "shape"):
        return int(batch.shape[0]) if len(batch.shape) else 0
    if depth and isinstance(batch, dict):
        batch = list(batch.values())
    if depth and isinstance(batch, (list, tuple)):
        return next((n for n in (_samples(one, depth - 1) for one in batch[:8]) if n), 0)
    return 0
