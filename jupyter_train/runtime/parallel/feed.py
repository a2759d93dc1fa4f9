"""DataLoaders that hand each rank its share of every batch while a loop trains, and the whole batch otherwise."""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

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

from jupyter_train.record import WholeLoop
from jupyter_train.runtime.checkpoint.position import PassStanding
from jupyter_train.runtime.checkpoint.skipping import skip
from jupyter_train.runtime.parallel.errors import NotSplittable, not_splittable
from jupyter_train.runtime.parallel.loops import Loop, begins_a_loop, consumers, kind_of
from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.remarks import Remarks
from jupyter_train.runtime.parallel.rng import Streams
from jupyter_train.runtime.parallel.samples import looks_at_rank, state_of
from jupyter_train.runtime.parallel.shares import Share, cut
from jupyter_train.runtime.parallel.sites import Site, Sites, drains, is_left_by
from jupyter_train.runtime.parallel.streaming import Dealer, Dealt, Order, cut_ready, in_order, like
from jupyter_train.runtime.parallel.study import Study
from jupyter_train.runtime.parallel.watching import BATCHES
from jupyter_train.runtime.parallel.whole import WholeLoops, remark
from jupyter_train.runtime.parallel.workers import Numbered, WorkerInit, seed_of

if TYPE_CHECKING:
    from jupyter_train.runtime.checkpoint.passes import Passes

_DRAW_AT_THE_START = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


class Cutting:
    """How one pass cuts its batches, and the cuts that were made but not yet handed out."""

    def __init__(self, *, splits: bool, uneven: int) -> None:
        self.splits = splits
        self.uneven = uneven  #: so many of its next batches are cut unevenly
        self.cuts: deque[tuple[Share | None, int]] = deque()
        self.skip = 0  #: batches that are done, before the first one that is handed out
        self.planned: deque[tuple[bool, bool]] = (
            deque()
        )  #: how its next batches are to be cut: split, unevenly
        self.skips_by_itself = False
        self.state = 0  #: digest of what the data set of a stream holds
        self.ready_rows = (
            0  #: most rows of a batch that the data set makes itself and this pass cuts; 0: none
        )

    def go_on(self, standing: PassStanding, *, by_itself: bool) -> None:
        """The pass goes on where another one stood.

        Args:
            by_itself: its batches are drawn ahead, so that those which are done have to be left out as they are drawn.
        """
        self.skips_by_itself = by_itself
        self.splits = self.splits if standing.splits is None else standing.splits
        self.cuts.clear()
        if by_itself:
            self.skip, self.uneven = standing.done, standing.uneven
            self.planned.extend(standing.drawn)


class Splitter:
    """Stands in for a loader's batch sampler: the same batches, cut; of a stream, orders for them.

    Kept for the life of the loader, since workers that persist keep it too;
    ``cutting`` is that of the newest pass. Runs in the rank's main thread, ahead
    of the batches by as many as the loader's workers prefetch.
    """

    def __init__(self, inner: Any, feed: Feed, *, is_stream: bool = False) -> None:
        self.inner = inner
        self.is_stream = is_stream
        self.cutting = Cutting(splits=False, uneven=0)
        self.numbers = False  #: its loader has workers, which are told what to draw from
        self._feed = feed
        sampler = getattr(inner, "sampler", None)
        self._draws_at_the_start = type(inner) is BatchSampler and type(sampler) in _DRAW_AT_THE_START

    def __len__(self) -> int:
        length = len(self.inner)
        return -(-length // self._feed.ranks) if self.cutting.splits and self._feed.per_rank else length

    def __iter__(self) -> Iterator[Any]:
        return self._batches(self.cutting)

    def _batches(self, cutting: Cutting) -> Iterator[Any]:
        feed = self._feed
        streams = feed.streams
        number = 0
        pass_seed = streams.place() if self.numbers else 0
        with streams.shared_by_torch() if self._draws_at_the_start else streams.shared():
            inner = iter(self.inner)
            batch = self._take(inner, cutting)
        while batch is not None and cutting.skip:
            cutting.skip -= 1
            number += 1
            with nullcontext() if self._draws_at_the_start else streams.shared():
                batch = self._take(inner, cutting)
        while batch is not None:
            if cutting.planned:
                splits, uneven = cutting.planned.popleft()
            else:
                splits = cutting.splits and feed.active
                uneven = splits and feed.take_uneven(cutting)
            if self.is_stream:
                yield Order(
                    total=len(batch),
                    ranks=feed.ranks if splits else 1,
                    rank=feed.rank,
                    uneven=uneven,
                    state=cutting.state,
                )
            elif not splits:
                cutting.cuts.append((None, len(batch)))
                yield Numbered(index=batch, seed=None) if self.numbers else batch
            else:
                part, share = cut(batch, rank=feed.rank, ranks=feed.ranks, uneven=uneven)
                cutting.cuts.append((share, share.total))
                index = like(batch, part)
                seed = seed_of(pass_seed, number, feed.rank)
                yield Numbered(index=index, seed=seed) if self.numbers else index
            number += 1
            if self._draws_at_the_start:
                batch = self._take(inner, cutting)
            else:
                with streams.shared():
                    batch = self._take(inner, cutting)

    def _take(self, inner: Iterator[Any], cutting: Cutting) -> Any:
        """The next global batch, None at the end; with the written size per rank, as many batches as there are ranks."""
        first = next(inner, None)
        if first is None or not (self._feed.per_rank and cutting.splits and self._feed.active):
            # A list may be one that the sampler goes on to change.
            return first if first is None or hasattr(first, "ndim") else like(first, list(first))
        batch = list(first)
        for _ in range(self._feed.ranks - 1):
            batch.extend(next(inner, ()))
        return like(first, batch)


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
        deals_itself: bool = False,
    ) -> None:
        self.loader = loader
        self.began: Mapping[str, Any] | None = None  #: from which random states, where somebody follows it
        self._inner = inner
        self._cutting = cutting
        self._feed = feed
        self.site = site
        self.loop = loop
        self.why_whole = why  #: why a training loop is done whole, "" where nothing stands against splitting
        self.deals_itself = deals_itself  #: each rank trains on what its own data set hands it
        self.share: Share | None = None
        self.backwards = 0
        # What a stream draws while it is read here must not depend on this rank's share.
        self._reads_here = isinstance(loader.dataset, IterableDataset) and not loader.num_workers
        self.is_open = True
        self.done = 0  #: batches that it has handed out
        self.persists = False  #: its workers were there before it
        self._is_new = True

    def __iter__(self) -> Pass:
        return self

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)

    @property
    def splits(self) -> bool:
        """Its next batches are shares."""
        return self._cutting is not None and self._cutting.splits

    @property
    def will_split(self) -> bool:
        """It is whole only because nobody knew that it trains."""
        return self._cutting is not None and self.loop is Loop.UNKNOWN and self._feed.active

    def standing(self) -> PassStanding:
        """Where it stands, before it hands out its next batch."""
        cutting = self._cutting
        if cutting is None:
            return PassStanding(done=self.done, backwards=self.backwards, persists=self.persists)
        shares = [share for share, _ in cutting.cuts]
        return PassStanding(
            done=self.done,
            backwards=self.backwards,
            splits=cutting.splits,
            uneven=cutting.uneven,
            persists=self.persists,
            drawn=tuple((share is not None, share is not None and share.is_forced) for share in shares),
        )

    def skip(self) -> None:
        """Leave out a batch that is done."""
        if self._cutting is None or not self._cutting.skips_by_itself:
            with self._feed.reading(shared=True):
                skip(self.loader, self._inner, where=str(self.site))

    def stand(self, standing: PassStanding) -> None:
        """All that are done were left out."""
        cutting = self._cutting
        self.done = standing.done
        self.backwards = standing.backwards
        if cutting is not None and not cutting.skips_by_itself:
            cutting.cuts.clear()
            cutting.splits = cutting.splits if standing.splits is None else standing.splits
            cutting.uneven = standing.uneven

    def __next__(self) -> Any:
        feed = self._feed
        if feed.passes is not None:
            feed.passes.next(self)
        if not torch.is_grad_enabled() and not self.splits:
            with feed.streams.shared():
                return self._next()
        # Beside a batch that is split, as of labelled and bare samples, a whole one would count otherwise.
        trains = self.backwards or feed.share is not None
        if trains and self.loop is Loop.UNKNOWN and self._cutting is not None:
            self._cutting.splits = True
        if self._is_new:
            self._is_new = False
            if self.splits and feed.is_drained():
                self._read_whole()
        if self.is_open:
            feed.enter(self)
        return self._next()

    def _read_whole(self) -> None:
        """Its batches are all drawn before the first of them is used: who has which share would be forgotten by then."""
        cutting = self._cutting
        assert cutting is not None
        if cutting.cuts:  # its workers have them already
            self._feed.enter(self)
            self._feed.give_up(not_splittable(str(self.site), _DRAINED, _DRAINED_FIX))
        cutting.splits = False
        self._feed.say_whole(self.site, _DRAINED)

    def _next(self) -> Any:
        feed = self._feed
        feed.fetching()
        if feed.study is not None:
            feed.study.fetching(self.site, splits=self.splits)
        try:
            with feed.reading(shared=self._reads_here and not self.deals_itself):
                batch = next(self._inner)
        except StopIteration:
            self.close()
            raise
        self.done += 1
        share, total = None, 0
        cutting = self._cutting
        if type(batch) is Dealt:
            batch, share, total = batch.batch, batch.share, batch.total
        elif cutting is not None and cutting.cuts:
            share, total = cutting.cuts.popleft()
        elif cutting is not None and cutting.ready_rows and cutting.splits and feed.active:
            batch, share = feed.cut_ready(self, batch, cutting)
            total = 0 if share is None else share.total
        self.share = share
        feed.streams.decisions.next_batch()
        feed.fetched(total)
        feed.count(self.site)
        if share is not None:
            feed.has_split[self.site] = None
        if feed.study is not None:
            feed.study.fetched(self.site, batch, share)
        return batch

    def close(self) -> None:
        """It has ended, or was left by break."""
        if self.is_open:
            self.is_open = False
            self._feed.leave(self)
            self.share = None

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
        whole: WholeLoops,
        study: Study | None,
        fetching: Callable[[], None],
        fetched: Callable[[int], None],
    ) -> None:
        self.rank = rank
        self.ranks = ranks
        self.per_rank = per_rank
        self.streams = streams
        self.fetching = fetching
        self.fetched = fetched
        self.study = study
        self.has_split: dict[Site, None] = {}  #: loops of which batches were split
        self.active = True
        self.passes: Passes | None = None  #: who follows the passes, for checkpoints
        self.wants_uneven = False
        self.give_up: Callable[[NotSplittable], NoReturn] = _raised
        self._is_reading = False
        self._iterate: Callable[[Any], Any] = DataLoader.__iter__
        self._sites = sites
        self._remarks = remarks
        self._whole = whole
        self._open: list[weakref.ref[Pass]] = []
        self._splitters: weakref.WeakKeyDictionary[Any, Splitter] = weakref.WeakKeyDictionary()
        self._trained: set[Site] = set()  #: loops that have come to a backward
        self._dropped: list[Site] = []  #: split loops left by break or an error in their first batches
        self._handed: Counter[Site] = Counter()
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
    def share(self) -> Share | None:
        """The share of the batch that is being worked on, or of one that an outer loop still works on."""
        for ref in reversed(self._open):
            one = ref()
            if one is not None and one.share is not None:
                return one.share
        return None

    @property
    def shares(self) -> list[Share]:
        """The shares of all open passes: of several where loaders are zipped or nested."""
        passes = [ref() for ref in self._open]
        return [one.share for one in passes if one is not None and one.share is not None]

    def trained(self, current: Pass) -> None:
        """A backward has come out of the batch of ``current``, and of those that are zipped with it."""
        self._trained.add(current.site)
        for one in [ref() for ref in self._open]:
            if one is not None and one.site is current.site:
                one.backwards += 1

    def _has_just_begun(self, site: Site) -> bool:
        """It never came to a backward, or is at the first batch that is cut evenly.

        Its shares have another size, which a state that is handed from batch to
        batch does not fit.
        """
        return site not in self._trained or self._handed[site] == BATCHES + 1

    def count(self, site: Site) -> None:
        """A batch was handed out there."""
        self._handed[site] += 1

    def untried(self, error: BaseException) -> list[Site]:
        """The loops whose batches are split, that ``error`` has left, and that have just begun."""
        passes = [ref() for ref in self._open]
        split = [one.site for one in passes if one is not None and one.share is not None]
        return [
            site
            for site in dict.fromkeys([*split, *self._dropped])
            if self._has_just_begun(site) and is_left_by(site, error)
        ]

    def found_whole(self, error: NotSplittable, sites: Sequence[Site] = ()) -> tuple[WholeLoop, ...]:
        """The loops at ``sites``, else those whose batches are split at the moment, which ``error`` forbids."""
        passes = [ref() for ref in self._open]
        split = [one.site for one in passes if one is not None and (one.splits or one.share is not None)]
        return self._whole.found(sites or split, error)

    def ask_uneven(self) -> None:
        """What a loss is made of was not clear: cut the next batch unevenly."""
        self.wants_uneven = True

    @contextmanager
    def reading(self, *, shared: bool) -> Iterator[None]:
        """While a data set is read, or its workers are forked: loaders that it reads from in turn are its own affair.

        Args:
            shared: it draws what all ranks draw.
        """
        before, self._is_reading = self._is_reading, True
        self.streams.is_reading = True
        try:
            with self.streams.shared() if shared else nullcontext():
                yield
        finally:
            self._is_reading = self.streams.is_reading = before

    def take_uneven(self, cutting: Cutting) -> bool:
        """Is the next batch of that pass to be cut unevenly? Asked once for each."""
        uneven = cutting.uneven > 0 or self.wants_uneven
        cutting.uneven = max(0, cutting.uneven - 1)
        self.wants_uneven = False
        return uneven

    def cut_ready(self, one: Pass, batch: Any, cutting: Cutting) -> tuple[Any, Share | None]:
        """This rank's rows of a batch that the data set made."""
        found = cut_ready(
            batch,
            most=cutting.ready_rows,
            rank=self.rank,
            ranks=self.ranks,
            uneven=self.take_uneven(cutting),
            state=cutting.state,
        )
        if found is None:
            self._remarks.say(
                f"{one.site}: not all that is in a batch is a tensor of at most batch_size={cutting.ready_rows} rows, "
                "so every rank trains on whole batches: right, but not faster"
            )
            return batch, None
        return found

    # -- passes

    def enter(self, entered: Pass) -> None:
        """``entered`` hands out its next batch: from here on it is the one being worked on."""
        if self.current is not entered:
            self._open = [ref for ref in self._open if ref() not in (None, entered)]
            self._open.append(weakref.ref(entered))
        self.streams.use(private=self._draws_alone(entered))

    def _draws_alone(self, one: Pass | None) -> bool:
        """Its batches differ between ranks, so that ranks draw differently often."""
        return one is not None and self.active and (one.splits or one.deals_itself)

    def leave(self, left: Pass) -> None:
        """``left`` has ended."""
        if self.study is not None:
            self.study.left(left.site)
        if left.share is not None and self._has_just_begun(left.site) and left.site not in self._dropped:
            self._dropped.append(left.site)
        was_newest = bool(self._open) and self._open[-1]() in (None, left)
        self._open = [ref for ref in self._open if ref() not in (None, left)]
        if was_newest:
            self.streams.use(private=self._draws_alone(self.current))

    def begin(self, loader: Any, original: Callable[[Any], Any]) -> Any:
        """An iterator over ``loader``, in place of the one that ``original`` makes."""
        if self._is_reading or (not self.active and loader not in self._splitters):
            return original(loader)
        frame = self._sites.frame(3)
        if frame is None:
            return original(loader)
        site = self._sites.of(frame)
        loop = Loop.READS
        if torch.is_grad_enabled():
            frames = consumers(frame, self._sites.outer)
            key = tuple(map(self._sites.of, frames))
            kind = self._kinds.get(key)
            kind = self._kinds[key] = kind_of(frames) if kind is None else kind
            loop = kind_of(frames, by_values=True) if kind is Loop.UNKNOWN else kind
            if loop is Loop.UNKNOWN and not begins_a_loop(frame) and self._sites.library(3):
                loop = Loop.READS  # a trainer's own loop: what it logs and watches would be this rank's share
        standing = None if self.passes is None else self.passes.begins(frame, loader)
        one = self._opened(loader, original, site, loop, standing)
        if self.passes is not None:
            self.passes.begun(frame, one)
        return one

    def reopen(self, loader: Any, site: Site, loop: str, standing: PassStanding) -> Pass:
        """Another pass over ``loader``, as one that began at ``site`` in an earlier attempt."""
        return self._opened(loader, self._iterate, site, Loop(loop), standing)

    def place_of(self, one: Any, key: Callable[[Site], Any]) -> list[Any] | None:
        """Where ``one`` began, as plain values."""
        return [key(one.site), one.loop.value] if isinstance(one, Pass) else None

    def _opened(
        self,
        loader: Any,
        original: Callable[[Any], Any],
        site: Site,
        loop: Loop,
        standing: PassStanding | None,
    ) -> Pass:
        deals_itself = _has_own_shares(loader)
        known = None if self.per_rank else self._whole.of(site)
        why = _DRAINED if loop is Loop.TRAINS and drains(site.text) else ""
        why = why or ("each rank has its own samples" if deals_itself else _why_whole(loader))
        if known is not None and not why:
            why = known.why
        splitter = cutting = None
        splits = loop is Loop.TRAINS and not why
        if not why:
            # In every pass, though the first would do: a run that is taken up again cuts as the one before it did.
            # A pass that is whole until it trains is watched from then on.
            cutting = Cutting(splits=splits, uneven=1 if self.per_rank else BATCHES)
            splitter = self._splitter(loader, cutting)
        if deals_itself and loop is Loop.TRAINS:
            self._remarks.say(
                f"{site}: this loader's data set or sampler deals samples out by rank: each rank trains on what it is "
                "given, with the batch size as written, and gradients are averaged"
            )
        elif known is not None and why is known.why:
            if loop is not Loop.READS:
                self._remarks.say(remark(known, site))
        elif loop is Loop.SOLVES:
            self._remarks.say(
                f"{site}: this loop takes its gradients by autograd.grad or torch.func, so every rank computes whole "
                "batches: right, but not faster"
            )
        elif why and loop is Loop.TRAINS:
            self.say_whole(site, why)
        persists = getattr(loader, "_iterator", None) is not None
        with self.reading(shared=True):
            if standing is not None and standing.persists and not persists and self.passes is not None:
                # Its workers were there before that pass, and it did not draw a seed for them.
                self._make(loader, splitter, original)
                self.passes.begins_again(loader)
                persists = True
            if standing is not None and cutting is not None and splitter is not None:
                splits = splits if standing.splits is None else standing.splits
                ahead = bool(loader.num_workers) and not splitter.is_stream and splits
                cutting.go_on(standing, by_itself=ahead)
            inner = self._make(loader, splitter, original)
        one = Pass(
            loader=loader,
            inner=inner,
            cutting=cutting,
            feed=self,
            site=site,
            loop=loop,
            why=why,
            deals_itself=deals_itself and loop is Loop.TRAINS,
        )
        one.persists = persists
        return one

    def state(self, key: Callable[[Site], Any]) -> dict[str, Any]:
        """What is known of loops, as plain values; sites by ``key``."""
        return {
            "wants_uneven": self.wants_uneven,
            "trained": [key(site) for site in self._trained],
            "handed": [[key(site), count] for site, count in self._handed.items()],
            "split": [key(site) for site in self.has_split],
        }

    def set_state(self, state: Mapping[str, Any], site: Callable[[Any], Site]) -> None:
        """Go on from there."""
        self.wants_uneven = bool(state["wants_uneven"])
        self._trained.update(map(site, state["trained"]))
        for key, count in state["handed"]:
            self._handed[site(key)] = int(count)
        self.has_split.update(dict.fromkeys(map(site, state["split"])))

    def say_whole(self, site: Site, why: str) -> None:
        """A loop that trains is not split."""
        self._remarks.say(f"{site}: {why}, so every rank trains on whole batches: right, but not faster")

    def is_drained(self) -> bool:
        """Whoever asks for a batch now will ask for all before it uses one."""
        frame = self._sites.frame(3)
        return frame is not None and drains(self._sites.of(frame).text)

    def _splitter(self, loader: Any, cutting: Cutting) -> Splitter | None:
        """What stands in for the loader's batch sampler, with the newest pass's ``cutting``; None where its data set batches."""
        is_stream = isinstance(loader.dataset, IterableDataset)
        if is_stream:
            cutting.state = state_of(loader.dataset)
            if loader.batch_sampler is None:
                cutting.ready_rows = _ready_rows(loader)
                return None
        inner = _batches_of(loader)
        splitter = self._splitters.get(loader)
        if splitter is None or splitter.inner is not inner:
            splitter = self._splitters[loader] = Splitter(inner, self, is_stream=is_stream)
        splitter.cutting = cutting
        return splitter

    def _make(self, loader: Any, splitter: Splitter | None, original: Callable[[Any], Any]) -> Any:
        if splitter is None:
            return original(loader)
        attributes = loader.__dict__
        before = {name: attributes.get(name) for name in ("worker_init_fn", "collate_fn")}
        place = "batch_sampler" if loader.batch_sampler is not None else "sampler"
        attributes[place] = splitter
        if splitter.is_stream:
            # Its workers draw alike on all ranks, so that all read the same.
            attributes["collate_fn"] = Dealer(before["collate_fn"], self.rank, self.streams)
        elif loader.num_workers:
            rank = self.rank if splitter.cutting.splits else None
            attributes["worker_init_fn"] = WorkerInit(before["worker_init_fn"], rank)
            if getattr(loader, "_iterator", None) is None:  # else its workers are there already
                splitter.numbers = True
        try:
            inner = original(loader)
        finally:
            attributes[place] = splitter.inner
            attributes.update(before)
        if splitter.is_stream and loader.num_workers:
            in_order(inner)
        return inner

    def length(self, loader: Any, original: Callable[[Any], int]) -> int:
        """``len(loader)``: fewer batches where each rank takes one of the written size."""
        length = original(loader)
        if not self.per_rank or not self.active or _why_whole(loader) or _has_own_shares(loader):
            return length
        if loader.batch_sampler is None and isinstance(loader.dataset, IterableDataset):
            return length  # the data set makes its batches itself
        splitter = self._splitters.get(loader)
        if splitter is not None and not splitter.cutting.splits:
            return length  # it was last read whole: a validation loader
        if isinstance(loader.dataset, IterableDataset) and loader.drop_last:
            return length // self.ranks
        return -(-length // self.ranks)

    # -- patches

    def install(self, patches: Patches) -> None:
        """Stand in for ``DataLoader.__iter__``, and for its length where batches are per rank."""
        iterate = self._iterate
        patches.replace(DataLoader, "__iter__", lambda loader: self.begin(loader, iterate))
        if self.per_rank:
            count = DataLoader.__len__
            patches.replace(DataLoader, "__len__", lambda loader: self.length(loader, count))


_DRAINED = "all batches are drawn before the first of them is used"
_DRAINED_FIX = "It is split where the loop reads the loader itself"


def _raised(error: NotSplittable) -> NoReturn:
    raise error


def _has_own_shares(loader: Any) -> bool:
    """The cell cuts the data itself."""
    batches = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), getattr(batches, "sampler", None))
    if any(isinstance(sampler, DistributedSampler) for sampler in samplers):
        return True
    return isinstance(loader.dataset, IterableDataset) and looks_at_rank(
        loader.dataset, loader.worker_init_fn
    )


def _why_whole(loader: Any) -> str:
    """Why the batches of ``loader`` are not cut; "" where they are."""
    if not getattr(loader, "in_order", True) and loader.num_workers:
        return "a loader with in_order=False is not split"
    if isinstance(loader.dataset, IterableDataset):
        if loader.batch_sampler is None and not _ready_rows(loader):
            return (
                "a loader with batch_size=None is not split unless its data set says by an attribute batch_size how "
                "many samples the first dimension of what it yields has"
            )
    elif _batches_of(loader) is None:
        return "a loader with batch_size=None is not split unless its sampler is a BatchSampler"
    return ""


def _ready_rows(loader: Any) -> int:
    """Samples in a batch that the data set of a stream makes itself, as it says; 0 where it does not say so."""
    rows = getattr(loader.dataset, "batch_size", None)
    return rows if isinstance(rows, int) and rows > 1 else 0


def _batches_of(loader: Any) -> Any:
    """What hands out the loader's batches of indices; None where nothing does."""
    if loader.batch_sampler is not None:
        return loader.batch_sampler
    sampler = loader.sampler
    if isinstance(sampler, BatchSampler):
        return sampler
    is_list = isinstance(sampler, Sequence) and len(sampler) > 0
    return (
        sampler
        if is_list and all(isinstance(one, (list, tuple)) or getattr(one, "ndim", 0) == 1 for one in sampler)
        else None
    )
