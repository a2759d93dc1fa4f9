"""Ranks that record, the same cell alone, and the verdict; and five ways to break data parallel."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jupyter_train.record.proof import Proof
from jupyter_train.runtime.proof.judge import judge
from jupyter_train.runtime.proof.recording import Recording
from tests.runtime.parallel.ranks import (
    CELL,
    Outcome,
    Recorder,
    Way,
    _gathered,
    _in_processes,
    _new_main,
    prelude,
    together,
)

Breakage = Callable[[Any], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def nothing_broken(parallel: Any) -> Iterator[None]:
    """As it is."""
    del parallel
    yield


@dataclass
class Proved:
    """One cell: the verdict, and how it ended on rank 0 and alone."""

    proof: Proof
    ranks: list[Outcome]
    alone: Outcome


def prove(cells: Sequence[str], *, ranks: int, broken: Breakage = nothing_broken, **way: Any) -> list[Proved]:
    """The verdict on each of ``cells``."""

    @contextlib.contextmanager
    def within(parallel: Any, observer: Any) -> Iterator[dict[str, Any]]:
        from jupyter_train.runtime.proof.attach import watch_rank

        seen: dict[str, Any] = {}
        if parallel.rank == 0:
            witness = watch_rank(
                observer,
                parallel,
                begun=lambda number: seen.update(first=number),
                full=lambda recording: seen.update(recording=recording),
            )
        with broken(parallel):
            yield seen
        if parallel.rank == 0:
            seen.setdefault("recording", witness.recording)

    by_rank = together(cells, Way(ranks=ranks, within=within, **way))
    firsts = [outcome.seen.get("first", 0) if outcome.seen else 0 for outcome in by_rank[0]]

    def run() -> Iterator[Outcome]:
        for cell, first in zip(cells, firsts, strict=True):
            yield _alone(cell, first, single=bool(way.get("single")))

    (alones,) = _in_processes([run], len(cells), 100.0)
    out = []
    for number, alone in enumerate(alones):
        of_cell = [outcomes[number] for outcomes in by_rank]
        assert of_cell[0].seen, of_cell[0].error
        mine: Recording = of_cell[0].seen["recording"]
        out.append(Proved(judge(mine, alone.seen, ranks=ranks), of_cell, alone))
    return out


def _alone(cell: str, first: int, *, single: bool) -> Outcome:
    """The cell as the only rank, recording from that backward on; run to its end for its weights."""
    import random

    from jupyter_train.runtime.observe import Observer
    from jupyter_train.runtime.parallel import install
    from jupyter_train.runtime.proof.attach import watch_alone
    from jupyter_train.runtime.stopping import StopFlag

    torch.set_num_threads(1)
    recorder, stop = Recorder(), StopFlag()
    observer = Observer(recorder, stop, CELL)
    source = prelude(single=single) + textwrap.dedent(cell)
    namespace = _new_main(source)
    random.seed(0)
    parallel = install(
        rank=0, world_size=1, local_world_size=1, store=None, device="cpu",
        recorder=recorder, stop=stop, observer=observer, cell_file=CELL,
    )  # fmt: skip
    kept: list[Recording] = []
    solo = watch_alone(observer, first=first, full=kept.append)
    exec(compile(source, CELL, "exec"), namespace)
    recording = kept[0] if kept else solo.recording
    solo.close()
    parallel.close()
    outcome = _gathered(Outcome(), namespace, ())
    outcome.seen = recording
    return outcome


# -- five ways to break it


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def no_averaging(parallel: Any) -> Iterator[None]:
    """The averages are never put in place of the gradients."""
    from jupyter_train.runtime.parallel.averaging import Averager

    del parallel
    with _replaced(Averager, "keep", lambda averager, plan: None):
        yield


@contextlib.contextmanager
def double_averaging(parallel: Any) -> Iterator[None]:
    """What is an average already is divided by the ranks once more."""
    from jupyter_train.runtime.parallel.averaging import Averager

    keep = Averager.keep

    def twice(averager: Any, plan: Any) -> None:
        keep(averager, plan)
        for bucket in plan.buckets:
            if bucket.grads:
                torch._foreach_div_(bucket.grads, parallel.world_size)

    with _replaced(Averager, "keep", twice):
        yield


@contextlib.contextmanager
def one_bucket_left_out(parallel: Any) -> Iterator[None]:
    """The first bucket's gradients stay the rank's own."""
    from jupyter_train.runtime.parallel import plan as planning
    from jupyter_train.runtime.parallel.averaging import Averager

    del parallel

    def keep(averager: Any, plan: Any) -> None:
        with torch.no_grad():
            for bucket in plan.buckets[1:]:
                bucket.keep()

    with _replaced(planning, "FIRST_BUCKET_BYTES", 64), _replaced(Averager, "keep", keep):
        yield


@contextlib.contextmanager
def wrong_shard(parallel: Any) -> Iterator[None]:
    """Every rank takes the first part of each batch."""
    from jupyter_train.runtime.parallel import feed as feeding
    from jupyter_train.runtime.parallel import shares

    def cut(batch: Any, *, rank: int, ranks: int, uneven: bool = False) -> Any:
        part, _ = shares.cut(batch, rank=0, ranks=ranks, uneven=False)
        _, share = shares.cut(batch, rank=rank, ranks=ranks, uneven=False)
        return part, share

    del parallel
    with _replaced(feeding, "cut", cut):
        yield


@contextlib.contextmanager
def stale_buffers(parallel: Any) -> Iterator[None]:
    """A bucket is filled once and never again."""
    from jupyter_train.runtime.parallel.plan import Bucket

    del parallel
    gather = Bucket.gather
    filled: dict[Any, torch.Tensor] = {}

    def once(bucket: Any, ranks: int) -> None:
        gather(bucket, ranks)
        whole = bucket.outgoing[bucket.turn].whole
        whole.copy_(filled.setdefault(bucket, whole.clone()))

    with _replaced(Bucket, "gather", once):
        yield


@contextlib.contextmanager
def local_statistics(parallel: Any) -> Iterator[None]:
    """The running statistics of a BatchNorm are those of what this rank saw."""
    from jupyter_train.runtime.parallel.batchnorm import Statistics

    del parallel
    normalize = Statistics._normalize

    def local(self: Any, x: Any, running: Any, weight: Any, bias: Any, momentum: Any, *rest: Any) -> Any:
        with torch.no_grad():
            variance, mean = torch.var_mean(x, [0, *range(2, x.dim())])
            running[0].lerp_(mean, momentum)
            running[1].lerp_(variance, momentum)
        return normalize(self, x, (None, None), weight, bias, momentum, *rest)

    with _replaced(Statistics, "_normalize", local):
        yield


@contextlib.contextmanager
def times(factor: float) -> Iterator[None]:
    """All gradients are so many times as large."""
    from jupyter_train.runtime.parallel.averaging import Averager

    keep = Averager.keep

    def scaled(averager: Any, plan: Any) -> None:
        keep(averager, plan)
        for bucket in plan.buckets:
            if bucket.grads:
                torch._foreach_mul_(bucket.grads, factor)

    with _replaced(Averager, "keep", scaled):
        yield
