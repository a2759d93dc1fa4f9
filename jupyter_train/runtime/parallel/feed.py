"""DataLoaders that hand each rank its share of every batch while a loop trains, and the whole batch otherwise."""

from __future__ import annotations

import random
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from jupyter_train.runtime.parallel.loops import Loop, consumers, kind_of
from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.remarks import Remarks
from jupyter_train.runtime.parallel.rng import Streams
from jupyter_train.runtime.parallel.shares import Share, cut
from jupyter_train.runtime.parallel.sites import Site, Sites

_DRAW_AT_THE_START = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


class Cutting:
    """How one pass cuts its batches, and the cuts that were made but not yet handed out."""

    def __init__(self, *, splits: bool, uneven_first: bool) -> None:
        self.splits = splits
        self.uneven_first = uneven_first
        self.cuts: deque[tuple[Share | None, int]] = deque()


class Splitter:
    """Stands in for a loader's batch sampler: the same batches, cut.

    Kept for the life of the loader, since workers that persist keep it too;
    ``cutting`` is that of the newest pass. Runs in the rank's main thread, ahead
    of the batches by as many as the loader's workers prefetch.
    """

    def __init__(self, inner: Any, feed: Feed) -> None:
        self.inner = inner
        self.cutting = Cutting(splits=False, uneven_first=False)
        self._feed = feed
        sampler = getattr(inner, "sampler", None)
        self._draws_at_the_start = type(inner) is BatchSampler and type(sampler) in _DRAW_AT_THE_START

    def __len__(self) -> int:
        length = len(self.inner)
        return -(-length // self._feed.ranks) if self.cutting.splits and self._feed.per_rank else length

    def __iter__(self) -> Iterator[list[Any]]:
        return self._batches(self.cutting)

    def _batches(self, cutting: Cutting) -> Iterator[list[Any]]:
        feed = self._feed
        streams = feed.streams
        with streams.shared_by_torch() if self._draws_at_the_start else streams.shared():
            inner = iter(self.inner)
            batch = self._take(inner, cutting)
        while batch is not None:
            if not (cutting.splits and feed.active):
                cutting.cuts.append((None, len(batch)))
                yield batch
            else:
                uneven = cutting.uneven_first or feed.wants_uneven
                cutting.uneven_first = feed.wants_uneven = False
                part, share = cut(batch, rank=feed.rank, ranks=feed.ranks, uneven=uneven)
                cutting.cuts.append((share, share.total))
                yield part
            if self._draws_at_the_start:
                batch = self._take(inner, cutting)
            else:
                with streams.shared():
                    batch = self._take(inner, cutting)

    def _take(self, inner: Iterator[Any], cutting: Cutting) -> list[Any] | None:
        """The next global batch; with the written size per rank, as many batches as there are ranks."""
        first = next(inner, None)
        if first is None:
            return None
        batch = list(first)
        if self._feed.per_rank and cutting.splits and self._feed.active:
            for _ in range(self._feed.ranks - 1):
                batch.extend(next(inner, ()))
        return batch


class Pass:
    """One pass over a loader: knows the share of the batch that is being worked on."""

    def __init__(
        self,
        *,
        loader: Any,
        inner: Any,
        cutting: Cutting | None,
        feed: Feed,
        site: Site,
        loop: Loop,
        why: str,
    ) -> None:
        self._loader = loader
        self._inner = inner
        self._cutting = cutting
        self._feed = feed
        self.site = site
        self.loop = loop
        self.why_whole = why  #: why a training loop is done whole, "" where nothing stands against splitting
        self.share: Share | None = None
        self.backwards = 0
        self.is_open = True

    def __iter__(self) -> Pass:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)

    @property
    def splits(self) -> bool:
        """Its next batches are shares."""
        return self._cutting is not None and self._cutting.splits

    def __next__(self) -> Any:
        feed = self._feed
        if not torch.is_grad_enabled() and not self.splits:
            with feed.streams.shared():
                return self._next()
        if self.backwards and self.loop is Loop.UNKNOWN and self._cutting is not None:
            self._cutting.splits = True
        if self.is_open:
            feed.enter(self)
        return self._next()

    def _next(self) -> Any:
        feed = self._feed
        feed.fetching()
        try:
            batch = next(self._inner)
        except StopIteration:
            self.close()
            raise
        share, total = None, 0
        if self._cutting is not None and self._cutting.cuts:
            share, total = self._cutting.cuts.popleft()
        self.share = share
        feed.fetched(total)
        return batch

    def close(self) -> None:
        """It has ended, or was left by break."""
        if self.is_open:
            self.is_open = False
            self.share = None
            self._feed.leave(self)

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:
            pass  # while the interpreter ends, torch may be gone before us


class Feed:
    """The open passes over loaders, the newest last.

    Main thread of a rank.
    """

    def __init__(
        self,
        *,
        rank: int,
        ranks: int,
        per_rank: bool,
        streams: Streams,
        sites: Sites,
        remarks: Remarks,
        fetching: Callable[[], None],
        fetched: Callable[[int], None],
    ) -> None:
        self.rank = rank
        self.ranks = ranks
        self.per_rank = per_rank
        self.streams = streams
        self.fetching = fetching
        self.fetched = fetched
        self.active = True
        self.wants_uneven = False
        self._sites = sites
        self._remarks = remarks
        self._open: list[weakref.ref[Pass]] = []
        self._splitters: weakref.WeakKeyDictionary[Any, Splitter] = weakref.WeakKeyDictionary()
        self._seen: set[Site] = set()
        self._kinds: dict[tuple[Site, ...], Loop] = {}

    # -- what the backward asks

    @property
    def current(self) -> Pass | None:
        """The pass whose batch is being worked on."""
        while self._open:
            newest = self._open[-1]()
            if newest is not None:
                return newest
            self._open.pop()
        return None

    @property
    def shares(self) -> list[Share]:
        """The shares of all open passes: of several where loaders are zipped or nested."""
        passes = [ref() for ref in self._open]
        return [one.share for one in passes if one is not None and one.share is not None]

    def ask_uneven(self) -> None:
        """What a loss is made of was not clear: cut the next batch unevenly."""
        self.wants_uneven = True

    # -- passes

    def enter(self, entered: Pass) -> None:
        """``entered`` hands out its next batch: from here on it is the one being worked on."""
        if self.current is not entered:
            self._open = [ref for ref in self._open if ref() not in (None, entered)]
            self._open.append(weakref.ref(entered))
        self.streams.use(private=entered.splits and self.active)

    def leave(self, left: Pass) -> None:
        """``left`` has ended."""
        was_newest = bool(self._open) and self._open[-1]() in (None, left)
        self._open = [ref for ref in self._open if ref() not in (None, left)]
        if was_newest:
            newest = self.current
            self.streams.use(private=newest is not None and newest.splits and self.active)

    def begin(self, loader: Any, original: Callable[[Any], Any]) -> Any:
        """An iterator over ``loader``, in place of the one that ``original`` makes."""
        if not self.active or _has_own_shares(loader):
            return original(loader)
        frame = self._sites.frame(3)
        if frame is None:
            return original(loader)
        site = self._sites.of(frame)
        loop = Loop.READS
        if torch.is_grad_enabled():
            frames = consumers(frame, self._sites.outer)
            key = tuple(map(self._sites.of, frames))
            known = self._kinds.get(key)
            loop = self._kinds[key] = kind_of(frames) if known is None else known
        why = _why_whole(loader)
        splitter = cutting = None
        if not why:
            splitter = self._splitters.get(loader)
            if splitter is None or splitter.inner is not loader.batch_sampler:
                splitter = self._splitters[loader] = Splitter(loader.batch_sampler, self)
            splits = loop is Loop.TRAINS
            splitter.cutting = cutting = Cutting(
                splits=splits, uneven_first=splits and site not in self._seen
            )
            if splits:
                self._seen.add(site)
        if loop is Loop.SOLVES:
            self._remarks.say(
                f"{site}: this loop takes its gradients by autograd.grad or torch.func, so every rank computes whole "
                "batches: right, but not faster"
            )
        elif why and loop is Loop.TRAINS:
            self._remarks.say(f"{site}: {why}, so every rank trains on whole batches: right, but not faster")
        with self.streams.shared():
            inner = self._make(loader, splitter, original)
        return Pass(loader=loader, inner=inner, cutting=cutting, feed=self, site=site, loop=loop, why=why)

    def _make(self, loader: Any, splitter: Splitter | None, original: Callable[[Any], Any]) -> Any:
        if splitter is None:
            return original(loader)
        attributes = loader.__dict__
        init = attributes.get("worker_init_fn")
        attributes["batch_sampler"] = splitter
        if loader.num_workers and splitter.cutting.splits:
            attributes["worker_init_fn"] = WorkerInit(init, self.rank)
        try:
            return original(loader)
        finally:
            attributes["batch_sampler"] = splitter.inner
            attributes["worker_init_fn"] = init

    def length(self, loader: Any, original: Callable[[Any], int]) -> int:
        """``len(loader)``: fewer batches where each rank takes one of the written size."""
        length = original(loader)
        if not self.per_rank or not self.active or _why_whole(loader) or _has_own_shares(loader):
            return length
        splitter = self._splitters.get(loader)
        if splitter is not None and not splitter.cutting.splits:
            return length  # it was last read whole: a validation loader
        return -(-length // self.ranks)

    # -- patches

    def install(self, patches: Patches) -> None:
        """Stand in for ``DataLoader.__iter__``, and for its length where batches are per rank."""
        iterate = DataLoader.__iter__
        patches.replace(DataLoader, "__iter__", lambda loader: self.begin(loader, iterate))
        if self.per_rank:
            count = DataLoader.__len__
            patches.replace(DataLoader, "__len__", lambda loader: self.length(loader, count))


class WorkerInit:
    """A loader's worker draws other random numbers than the same worker of another rank."""

    def __init__(self, inner: Callable[[int], None] | None, rank: int) -> None:
        self._inner = inner
        self._rank = rank

    def __call__(self, worker: int) -> None:
        seed = (torch.initial_seed() + 1_000_003 * self._rank) % (1 << 62)
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        import numpy as np

        np.random.seed(seed % (1 << 32))
        if self._inner is not None:
            self._inner(worker)


def _has_own_shares(loader: Any) -> bool:
    """The cell cuts the data itself."""
    batches = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), getattr(batches, "sampler", None))
    return any(isinstance(sampler, DistributedSampler) for sampler in samplers)


def _why_whole(loader: Any) -> str:
    """Why the batches of ``loader`` are not cut; "" where they are."""
    if isinstance(loader.dataset, IterableDataset):
        return "a loader over an IterableDataset is not split"
    if loader.batch_sampler is None:
        return "a loader with batch_size=None is not split"
    if not getattr(loader, "in_order", True) and loader.num_workers:
        return "a loader with in_order=False is not split"
    return ""
