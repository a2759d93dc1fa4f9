"""Makes a rank's process run its cell data-parallel, and takes everything back."""

from __future__ import annotations

import functools
import linecache
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jupyter_train.errors import CellError, RanksDiverged
from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.remarks import Remarks

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # type: ignore[attr-defined]

    from jupyter_train.record import WholeLoop
    from jupyter_train.runtime.observe import Observer
    from jupyter_train.runtime.parallel.collectives import Collectives
    from jupyter_train.runtime.parallel.engine import Engine
    from jupyter_train.runtime.parallel.feed import Feed, Pass
    from jupyter_train.runtime.parallel.groups import Groups
    from jupyter_train.runtime.parallel.header import Header
    from jupyter_train.runtime.parallel.lookout import Lookout
    from jupyter_train.runtime.parallel.neighbours import Neighbours
    from jupyter_train.runtime.parallel.reducer import Reducer
    from jupyter_train.runtime.parallel.rng import Streams
    from jupyter_train.runtime.parallel.sites import Site, Sites
    from jupyter_train.runtime.parallel.study import Study
    from jupyter_train.runtime.stopping import StartOver, StopFlag

LONG_S = 2.0  #: a cell that every rank does whole is worth a word from here on


class Parallel:
    """What one rank has of the others. Main thread of a rank process.

    Made by :func:`install`. On one rank, or with strategy "none", nothing but
    the observer is patched, and the collectives make their groups when asked.
    """

    def __init__(
        self, *, rank: int, world_size: int, make_groups: Callable[[], Groups], observer: Observer
    ) -> None:
        from jupyter_train.runtime.parallel.collectives import Collectives

        self.rank = rank
        self.world_size = world_size
        self._make_groups = make_groups
        self._groups: Groups | None = None
        self._observer = observer
        self._patches = Patches()
        self._header: Header | None = None
        self._neighbours: Neighbours | None = None
        self._lookout: Lookout | None = None
        self._remarks: Remarks | None = None
        self._uses_gradients = False  #: torch.autograd.grad was called
        self._began = time.monotonic()
        self._reducer: Reducer | None = None
        self._feed: Feed | None = None
        self._streams: Streams | None = None
        self._study: Study | None = None
        self.engine: Engine | None = None  #: for checkpoints
        self._collectives: Collectives = Collectives(
            ranks=world_size, groups=self._the_groups, before=self._before_collective
        )

    def _the_groups(self) -> Groups:
        if self._groups is None:
            self._groups = self._make_groups()
        return self._groups

    def _before_collective(self) -> None:
        if self._header is not None:
            from jupyter_train.runtime.parallel.header import Kind

            self._header.post(Kind.COLLECTIVE, self._observer.sites.here())
            self._header.check()

    # -- for the cell, through ``train``

    def sum(self, value: Any) -> Any:
        """The sum over the ranks of a number, tensor or numpy array; collective."""
        return self._collectives.sum(value)

    def mean(self, value: Any) -> Any:
        """The mean over the ranks of a number, tensor or numpy array; collective."""
        return self._collectives.mean(value)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank; collective."""
        return self._collectives.gather(value)

    # -- for the engine

    @property
    def is_split(self) -> bool:
        """Batches are shared out and gradients averaged."""
        return self._reducer is not None and self._reducer.active

    @property
    def has_share(self) -> bool:
        """The batch that is being worked on is this rank's part of a global one."""
        current = self._feed.current if self.is_split and self._feed is not None else None
        return current is not None and current.share is not None

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All that gradients have been averaged for."""
        return list(self._reducer.registry.alive().values()) if self._reducer is not None else []

    def keep_when(self, is_due: Callable[[], bool], agreed: Callable[[], None]) -> None:
        """Ask ``is_due`` on rank 0 with each backward, and call ``agreed`` on all ranks after the one that told them."""
        if self._reducer is not None:
            self._reducer.on_keep = agreed
            if not self.rank:
                self._reducer.keep_requested = is_due

    def finish(self) -> None:
        """The cell has ended here. Whoever still waits for this rank learns that it will not come.

        Raises:
            RanksDiverged, StartOver, PeerLost: it was raised before, and the cell has caught it.
        """
        if self._header is not None:
            from jupyter_train.runtime.parallel.board import Life

            if self._header.over is not None:
                raise self._header.over
            if self._header.lost is not None:
                raise self._header.lost
            if self._header.parted:
                self._header.part()
            self._header.live(Life.FINISHED)
            self._say_that_nothing_was_shared()

    def _say_that_nothing_was_shared(self) -> None:
        """A long cell that trains nothing with PyTorch, a grid search for instance, was done by each rank."""
        took = time.monotonic() - self._began
        if took < LONG_S or not self.is_split or self._header is None or self._header.sequence:
            return
        if self._uses_gradients or self._observer.step or self._remarks is None or self._remarks.said:
            return
        if "rank" in "".join(linecache.getlines(self._observer.cell_file)).lower():
            return  # it shares out the work itself
        self._remarks.say(
            f"nothing was trained with PyTorch here: each of the {self.world_size} ranks did all of it; with -n 1 it is done once"
        )

    @property
    def over(self) -> StartOver | None:
        """The attempt is given up, whatever the cell made of that."""
        return None if self._header is None else self._header.over

    def reconsidered(self, error: BaseException) -> BaseException:
        """``error``, which the cell fails by; StartOver in its place where the cell only cannot have a share of its batch."""
        if self.over is not None:
            return self.over
        if self._reducer is not None:
            from jupyter_train.runtime.parallel.errors import NotSplittable
            from jupyter_train.runtime.stopping import StartOver

            try:
                self._reducer.blame_the_share(error)
            except StartOver as instead:
                return instead
            except NotSplittable:
                pass  # shares are forced
        return error

    def fail(self, error: BaseException) -> None:
        """The cell failed here: the others need not wait. Their error is PeerLost, or RanksDiverged if this one's is."""
        if self._header is not None:
            from jupyter_train.runtime.parallel.board import Life

            self._header.live(Life.PARTED if isinstance(error, RanksDiverged) else Life.FAILED)
        if self._neighbours is not None:
            self._neighbours.close()
        if self._groups is not None:
            self._groups.close()

    def close(self) -> None:
        """Leave torch as it was; twice does nothing."""
        if self._study is not None:
            self._study.end()
        if self._lookout is not None:
            self._lookout.stop()
        self._observer.close()
        self._observer.reducer = None
        self._patches.undo()
        if self._reducer is not None:
            self._reducer.registry.forget_hooks()
        if self._streams is not None:
            self._streams.use(private=False)

    # -- wiring

    def _note_gradients(self) -> None:
        self._uses_gradients = True

    def _leave_alone(self, remarks: Remarks) -> None:
        """The cell uses torch.distributed itself."""
        if self._reducer is not None and self._reducer.active:
            site, library = self._observer.sites.here(3), self._observer.sites.library(3)
            if self._feed is not None and self._feed.shares:
                raise CellError(
                    f"{site}: torch.distributed is started in the middle of a loop whose batches are split already. "
                    "Start it before the loop."
                )
            by = f" through {library}" if library else ""
            remarks.say(
                f"{site}: the cell starts torch.distributed itself{by}: nothing is split or averaged for it from here on"
            )
            self._reducer.active = False
            self._observer.shares_curves = False
        if self._study is not None:
            self._study.end()
        if self._feed is not None:
            self._feed.active = False
        if self._streams is not None:
            self._streams.use(private=False)

    def _split(
        self,
        *,
        local_world_size: int,
        device: torch.device,
        per_rank: bool,
        sync_batchnorm: bool,
        whole: Sequence[WholeLoop],
        parting_timeout_s: float,
        hang_timeout_s: float,
        waits: Callable[[int, str], None],
        stop: StopFlag,
        remarks: Remarks,
    ) -> None:
        from jupyter_train.runtime.parallel.batchnorm import Statistics
        from jupyter_train.runtime.parallel.board import make_board
        from jupyter_train.runtime.parallel.engine import SplitEngine
        from jupyter_train.runtime.parallel.feed import Feed
        from jupyter_train.runtime.parallel.header import Header, Kind
        from jupyter_train.runtime.parallel.learned import Learned
        from jupyter_train.runtime.parallel.lookout import Lookout
        from jupyter_train.runtime.parallel.neighbours import meet
        from jupyter_train.runtime.parallel.reducer import Reducer
        from jupyter_train.runtime.parallel.rng import Streams
        from jupyter_train.runtime.parallel.running import RunningStatistics
        from jupyter_train.runtime.parallel.study import Study
        from jupyter_train.runtime.parallel.whole import WholeLoops

        observer, patches = self._observer, self._patches
        groups = self._the_groups()
        sites = observer.sites
        one_host = local_world_size == self.world_size
        board = make_board(groups, one_host=one_host)
        self._header = header = Header(
            board,
            groups,
            sites,
            patience_s=parting_timeout_s,
            hang_s=hang_timeout_s,
            remark=observer.recorder.remark,
            waits=waits,
        )
        self._lookout = Lookout(board, sites)
        self._lookout.start()
        self._neighbours = meet(groups) if one_host and device.type == "cpu" else None
        self._streams = streams = Streams(self.rank, device)
        self._study = study = Study(groups=groups, sites=sites)
        self._feed = feed = Feed(
            rank=self.rank,
            ranks=self.world_size,
            per_rank=per_rank,
            streams=streams,
            sites=sites,
            remarks=remarks,
            whole=WholeLoops(whole, cell_file=observer.cell_file),
            study=study,
            fetching=observer.fetching,
            fetched=observer.fetched,
        )
        counted: set[Site] = set()

        def on_trained(trained: Pass, site: Site) -> None:
            _name_counters(remarks, counted, trained, site)
            running.settle()

        self._reducer = reducer = Reducer(
            groups=groups,
            header=header,
            sites=sites,
            feed=feed,
            remarks=remarks,
            rates=lambda: observer.pace_key,
            stop_requested=lambda: stop.requested,
            on_stop=observer.agree_to_stop,
            on_trained=on_trained,
            neighbours=self._neighbours,
            study=study,
        )

        def before_statistics(size: int) -> None:
            header.post(Kind.NORM, sites.here(), loss=size)
            header.check()

        def gather(row: torch.Tensor) -> torch.Tensor:
            before_statistics(row.numel())
            return groups.all_gather(row)

        def total(tensor: torch.Tensor) -> None:
            before_statistics(tensor.numel())
            groups.all_sum(tensor)

        running = RunningStatistics(total)

        def share() -> Any:
            current = feed.current if reducer.active else None
            return current.share if current is not None else None

        reducer.registry.install(patches)
        reducer.cell_hooks.install(patches)
        self._remarks = remarks
        _watch_grad(patches, reducer, study, self._note_gradients)
        study.install(patches)
        streams.install(patches)
        feed.install(patches)
        Statistics(
            gather=gather, total=total, share=share, running=running, synchronous=sync_batchnorm, study=study
        ).install(patches)
        _unwrap_data_parallel(patches)
        _watch_distributed(patches, lambda: self._leave_alone(remarks))
        observer.rank = self.rank
        observer.shares_curves = True
        observer.reducer = reducer
        self.engine = SplitEngine(
            ranks=self.world_size,
            device=device,
            observer=observer,
            collectives=self._collectives,
            patches=patches,
            streams=streams,
            feed=feed,
            header=header,
            groups=groups,
            learned=Learned(sites=sites, weigher=reducer.weigher, feed=feed, study=study),
        )


def install(
    *,
    rank: int,
    world_size: int,
    local_world_size: int,
    store: Store | None,
    device: torch.device | str,
    batch: Literal["global", "per-rank"] = "global",
    strategy: Literal["auto", "none"] = "auto",
    sync_batchnorm: bool = True,
    whole: Sequence[WholeLoop] = (),
    parting_timeout_s: float = 30.0,
    hang_timeout_s: float = 0.0,
    waits: Callable[[int, str], None] = lambda rank, hung: None,
    recorder: Any,
    stop: StopFlag,
    observer: Observer,
    cell_file: str,
) -> Parallel:
    """Patch torch for the length of a cell; ``Parallel.close()`` takes it back.

    Collective where batches are split. Main thread of a rank process, after the
    random states are set and before the cell begins.

    Args:
        local_world_size: ranks on this host; where that is all of them, they
            talk through shared memory.
        store: of the run; None is allowed on one rank.
        batch: "global": the batch size in the cell is that of all ranks
            together; "per-rank": each rank takes one of the written size.
        sync_batchnorm: statistics of a BatchNorm are those of the global batch.
        whole: loops that were found not to be splittable.
        parting_timeout_s: a rank that others wait for so long is named, with its line.
        hang_timeout_s: a rank that others wait for so long without a sign of life is given up; 0: never.
        waits: tells that a rank is waited for long, and in what way it hangs; empty where it does not.
        recorder: its ``remark`` says what is done otherwise than written.
        observer: attached here, so that every run has its curves.
        cell_file: the file name under which the cell was compiled.

    Raises:
        PeerLost: another rank vanished meanwhile.
    """
    import torch

    where = torch.device(device)

    def make_groups() -> Groups:
        from jupyter_train.runtime.parallel.groups import Groups

        assert store is not None, "a run of several ranks has a store"
        return Groups(rank=rank, world_size=world_size, store=store, device=where)

    parallel = Parallel(rank=rank, world_size=world_size, make_groups=make_groups, observer=observer)
    if world_size > 1:
        _refuse_launchers(parallel._patches, observer.sites, world_size)
    if world_size > 1 and strategy == "auto":
        remarks = Remarks(recorder.remark, rank=rank)
        if _is_as_expected(remarks):
            parallel._split(
                local_world_size=local_world_size,
                device=where,
                per_rank=batch == "per-rank",
                sync_batchnorm=sync_batchnorm,
                whole=whole,
                parting_timeout_s=parting_timeout_s,
                hang_timeout_s=hang_timeout_s,
                waits=waits,
                stop=stop,
                remarks=remarks,
            )
    if parallel.engine is None:
        from jupyter_train.runtime.parallel.engine import Engine

        parallel.engine = Engine(
            ranks=world_size,
            device=where,
            observer=observer,
            collectives=parallel._collectives,
            patches=parallel._patches,
        )
    observer.attach()
    return parallel


def _is_as_expected(remarks: Remarks) -> bool:
    import torch

    from jupyter_train.runtime.parallel.selftest import graph_can_be_read, loaders_can_be_split

    if loaders_can_be_split() and graph_can_be_read():
        return True
    remarks.say(
        f"torch {torch.__version__} is not one that batches can be split with: every rank computes everything"
    )
    return False


def _watch_grad(patches: Patches, reducer: Reducer, study: Study, called: Callable[[], None]) -> None:
    import torch

    original = torch.autograd.grad

    @functools.wraps(original)
    def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        called()
        with study.paused(), reducer.taking(outputs, inputs, grad_outputs) as given:
            return original(outputs, inputs, given, *args, **kwargs)

    patches.replace(torch.autograd, "grad", grad)


def _unwrap_data_parallel(patches: Patches) -> None:
    """nn.DataParallel would spread this rank's share over GPUs that belong to other ranks."""
    import torch

    def forward(wrapper: Any, *inputs: Any, **kwargs: Any) -> Any:
        return wrapper.module(*inputs, **kwargs)

    patches.replace(torch.nn.DataParallel, "forward", forward)


def _refuse_launchers(patches: Patches, sites: Sites, ranks: int) -> None:
    """Launchers of processes would wait for each other: each rank begins a rendezvous, all at one port."""
    from torch.distributed.launcher.api import elastic_launch

    def __call__(launch: Any, *args: Any) -> Any:
        raise CellError(
            f"{sites.here()}: this starts processes of its own, but the cell runs as {ranks} processes already, its "
            "ranks. Call the function itself: each rank runs it, and torch.distributed, DDP and accelerate find "
            "them. Or, to launch from here:  -n 1."
        )

    patches.replace(elastic_launch, "__call__", __call__)


def _watch_distributed(patches: Patches, left_alone: Callable[[], None]) -> None:
    import torch.distributed as dist

    original = dist.init_process_group

    @functools.wraps(original)
    def init_process_group(*args: Any, **kwargs: Any) -> Any:
        left_alone()
        return original(*args, **kwargs)

    patches.replace(dist, "init_process_group", init_process_group)
    patches.replace(dist.distributed_c10d, "init_process_group", init_process_group)


def _name_counters(remarks: Remarks, done: set[Site], trained: Pass, site: Site) -> None:
    """After the first backward of a split loop: say which of its lines count this rank's share only."""
    if trained.site in done or trained.share is None:
        return
    done.add(trained.site)
    from jupyter_train.runtime.parallel.counters import counters, sentence
    from jupyter_train.runtime.parallel.sites import loss_name

    source = linecache.getlines(trained.site.file)
    found = counters(source, loop_line=trained.site.line, losses={loss_name(site.text)})
    if found:
        remarks.say(sentence(found, trained.site.beside))
