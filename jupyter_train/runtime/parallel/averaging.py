"""The gradients of one backward, made the average over the ranks.

Ranks of one host add up through shared memory, others by gloo or NCCL. The
whole ``.grad`` is averaged, never summed: that is idempotent, so that
accumulated gradients cannot count twice. Buckets are reduced while backward
still runs, all but the last, which carries flags and the loss and is reduced
when backward has returned. When a flag says that some rank saw other gradients
than planned, the ranks compare notes and reduce once more from the gradients,
which are still their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from jupyter_train.errors import CellError, RanksDiverged
from jupyter_train.runtime.parallel.errors import not_splittable
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.header import Header, Kind
from jupyter_train.runtime.parallel.learning import Learner
from jupyter_train.runtime.parallel.neighbours import MOST_BYTES, Neighbours
from jupyter_train.runtime.parallel.plan import Bucket, Plan, make_plan, share, shared_bytes
from jupyter_train.runtime.parallel.registry import Registry, leaves
from jupyter_train.runtime.parallel.sites import Site

CHECK_EVERY = 256  #: backwards between comparisons of all weights
ALIKE = 1e-5  #: relative difference of weights; hosts of different make round differently
_FLAG, _STOP, _KEEP, _LOSS, _AMOUNTS = 0, 1, 2, 3, 4  #: places in the extras of a plan


@dataclass(slots=True, eq=False, kw_only=True)
class Line:
    """What is known of the gradients of one line that calls backward."""

    site: Site
    plan: Plan | None = None
    has_learned: bool = False  #: the ranks agreed on its parameters just before this backward
    is_met: bool = False  #: its parameters were looked for in this attempt
    has_inputs: bool = False  #: its graph has leaves that are data (``x.requires_grad_()``), of a share
    overlaps: bool = True  #: buckets may start before backward has returned
    is_whole: bool = False  #: every rank computes all of it, this time
    looks: int = 0  #: at the buffers of models, together with the other ranks
    kept: frozenset[int] = frozenset()  #: parameters of a whole loop whose gradients cannot be averaged


@dataclass(slots=True, kw_only=True)
class Note:
    """What rides beside the gradients. Going out it is one rank's, coming back the sum of all."""

    differs: bool = False  #: other gradients came than planned
    stop: bool = False
    keep: bool = False  #: a checkpoint is due
    loss: float = float("nan")  #: NaN: not known
    #: by rank; each writes its own: how much its loss counts, and of a whole one its value
    amounts: list[float] = field(default_factory=list)


class Averager:
    """Averages the gradients of each backward. Main thread (hooks: whatever thread runs autograd)."""

    def __init__(
        self,
        *,
        groups: Groups,
        header: Header,
        registry: Registry,
        learner: Learner,
        namespaces: Callable[[], Sequence[Mapping[str, Any]]],
        neighbours: Neighbours | None = None,
    ) -> None:
        self._groups = groups
        self._neighbours = neighbours
        self._ranks = groups.world_size
        self._header = header
        self._registry = registry
        self._learner = learner
        self._namespaces = namespaces
        self._count = 0
        # Of the backward under way:
        self._line: Line | None = None
        self._plan: Plan | None = None
        self._unplanned = False
        self._late = False
        self._tag = 0  #: what its signals to the ranks of this host are named
        self._came: set[int] = set()
        self._kept: frozenset[int] = frozenset()

    # -- while backward runs

    @contextmanager
    def watching(self, line: Line) -> Iterator[None]:
        """Gradients that come now are those of ``line``."""
        self._line, self._plan = line, line.plan
        self._tag = self._header.sequence  # the BatchNorms in this backward go on counting
        self._unplanned = self._late = False
        self._came.clear()
        self._kept = line.kept if line.is_whole else frozenset()
        if line.plan is not None:
            line.plan.begin()
        try:
            yield
        except Exception as error:
            if not isinstance(error, RanksDiverged):
                self._finish_what_was_started()
            raise
        finally:
            self._line = None

    def _finish_what_was_started(self) -> None:
        """The backward failed, and the cell may catch that: what was sent is received, so that no signal is left over.

        Where every rank failed alike they are in step again; where one did alone its next signal is not what the
        others wait for.
        """
        if self._plan is not None:
            for bucket in self._plan.buckets[: self._plan.next]:
                self._finish(bucket)

    @property
    def is_watching(self) -> bool:
        """A backward is under way."""
        return self._line is not None

    def nested(self) -> None:
        """A reentrant checkpoint runs its own backward inside: gradients may come in several pieces."""
        if self._line is not None:
            self._line.overlaps = False

    def on_gradient(self, number: int, parameter: torch.Tensor) -> None:
        """The gradient of that parameter is complete, or grows by another piece. A hook: called once a parameter."""
        del parameter
        line = self._line
        if line is None or number in self._kept:
            return
        again = number in self._came
        self._came.add(number)
        plan = self._plan
        if plan is None:
            return
        place = plan.where.get(number)
        if place is None:
            self._unplanned = True
            return
        last = len(plan.buckets) - 1
        if last == 0:
            return  # the only bucket starts when backward has returned
        if again:
            self._late = self._late or place < plan.next
            return
        plan.buckets[place].left -= 1
        while line.overlaps and plan.next < last and plan.buckets[plan.next].left == 0:
            if plan.next == 0:
                self._header.check()
            self._start(plan.buckets[plan.next])
            plan.next += 1

    def _start(self, bucket: Bucket) -> None:
        bucket.gather(self._ranks)
        self._send(bucket)

    def _send(self, bucket: Bucket) -> None:
        if bucket.parts and self._neighbours is not None:
            self._neighbours.signal(self._tag)
        else:
            bucket.work = self._groups.data.allreduce([bucket.reduced.whole])

    def _finish(self, bucket: Bucket) -> None:
        if bucket.parts and self._neighbours is not None:
            if not self._neighbours.wait(self._tag):
                self._header.part()
        else:
            self._groups.wait(bucket.work)

    # -- when it has returned

    def reduce(self, line: Line, plan: Plan, note: Note) -> Note:
        """Start the buckets that are left and wait for all. The gradients are not yet touched.

        Raises:
            CellError: gradients that cannot be averaged differ between the ranks.
        """
        if plan.next == 0:
            self._header.check()
        if self._kept:
            note.amounts[self._groups.rank] = self._sum_of_kept(self._kept, self._registry.alive())
        elif line.is_whole:
            note.amounts[self._groups.rank] = note.loss
        last = len(plan.buckets) - 1
        for bucket in plan.buckets[plan.next : last]:
            self._start(bucket)
        extras = [0.0, float(note.stop), float(note.keep), note.loss, *note.amounts]
        if last >= 0:
            bucket = plan.buckets[last]
            bucket.gather(self._ranks)
            extras[_FLAG] = float(self._differs(plan))
            if bucket.reduced.extras is not None:
                bucket.write(extras)
            self._send(bucket)
            for bucket in plan.buckets:
                self._finish(bucket)
        if last >= 0 and plan.buckets[last].reduced.extras is not None:
            extras = plan.buckets[last].read()
        else:
            extras[_FLAG] = float(self._differs(plan))
            host = torch.tensor(extras, dtype=torch.float64)
            self._groups.all_sum(host)
            extras = host.tolist()
        if self._kept:
            _check_alike(extras[_AMOUNTS:], line.site)
        return Note(
            differs=extras[_FLAG] != 0.0,
            stop=extras[_STOP] != 0.0,
            keep=extras[_KEEP] != 0.0,
            loss=extras[_LOSS],
            amounts=extras[_AMOUNTS:],
        )

    def _differs(self, plan: Plan) -> bool:
        """Other gradients came than planned. One left over from before would do for the sum, but who came is what counts."""
        if self._unplanned or self._late or self._registry.has_news or len(self._came) != len(plan.numbers):
            return True
        return any(bucket.lacks for bucket in plan.buckets)

    def keep(self, plan: Plan) -> None:
        """Put the averages in place of the gradients."""
        with torch.no_grad():
            for bucket in plan.buckets:
                bucket.keep()

    def scale(self, plan: Plan, factor: float) -> None:
        """This rank's gradients counted otherwise than supposed: make them right before they are averaged again."""
        for bucket in plan.buckets:
            if bucket.grads and factor == 0.0:
                torch._foreach_zero_(bucket.grads)
            elif bucket.grads:
                torch._foreach_mul_(bucket.grads, factor)

    def agree(self, line: Line, roots: Sequence[torch.Tensor], note: Note) -> Note:
        """Agree with the other ranks on the gradients that there are, plan for them, and reduce from the start.

        Raises:
            RanksDiverged: a rank lacks a parameter that others use.
            NotSplittable: gradients that cannot be averaged.
            CellError: such gradients in a whole loop, which differ between the ranks.
        """
        self._header.check()
        nodes = [root.grad_fn for root in roots]
        if line.plan is not None or not line.has_learned:
            self._learner.learn(nodes, self._namespaces(), str(line.site))
        line.has_learned = False
        if self._late:
            line.overlaps = False
        parameters = self._registry.alive()
        mine = self._gradients(nodes, parameters, line)
        is_stale = line.plan is None or line.plan.is_stale()
        kept = self._sum_of_kept(line.kept, parameters)
        told = self._groups.exchange(
            (sorted(mine), line.overlaps, note.loss, (note.stop, note.keep), is_stale, kept)
        )
        _check_alike([theirs for *_, theirs in told], line.site)
        used = sorted(set().union(*(numbers for numbers, *_ in told)), reverse=True)
        if any(number not in parameters for number in used):
            raise RanksDiverged(
                f"{line.site}: another rank's loss depends on parameters that are gone on this one"
            )
        line.overlaps = all(overlaps for _, overlaps, *_ in told)
        if line.plan is None or line.plan.numbers != used or any(stale for *_, stale, _ in told):
            line.plan = self._make_plan(used, parameters)
        return Note(
            loss=self._reduce_all(line.plan, parameters, note.loss),
            stop=any(stop for *_, (stop, _), _, _ in told),
            keep=any(keep for *_, (_, keep), _, _ in told),
            amounts=[loss for _, _, loss, *_ in told] if line.is_whole and not line.kept else [],
        )

    def _make_plan(self, used: Sequence[int], parameters: dict[int, torch.Tensor]) -> Plan:
        """The same plan on every rank, in shared memory where there is some. Collective."""
        plan = make_plan(used, parameters, extras=_AMOUNTS + self._ranks)
        size_bytes = shared_bytes(plan, self._ranks)
        if self._neighbours is not None and 0 < size_bytes <= MOST_BYTES:
            memory = self._neighbours.memory(size_bytes)
            if memory is not None:
                share(plan, memory, rank=self._groups.rank, ranks=self._ranks)
        return plan

    def _gradients(
        self, nodes: Sequence[Any], parameters: Mapping[int, torch.Tensor], line: Line
    ) -> set[int]:
        """Numbers of the parameters that this backward gave a gradient to, without those that cannot be averaged.

        Raises:
            NotSplittable: there are such, and each rank has those of its share.
        """
        # Those inside a reentrant checkpoint are not in the graph, new ones were not watched.
        found = {number for number in self._came if number in parameters}
        found |= {number for number in map(self._registry.number, leaves(nodes)) if number is not None}
        found = {number for number in found if parameters[number].grad is not None}
        odd = frozenset(number for number in found if _kind(parameters[number].grad))
        if odd and not line.is_whole:
            kind = _kind(parameters[min(odd)].grad)
            raise not_splittable(
                str(line.site),
                f"the gradients are {kind}, which cannot be averaged over the ranks",
                "An Embedding without sparse=True is split" if kind == "sparse" else "",
            )
        line.kept = odd
        return found - odd

    def _sum_of_kept(self, kept: frozenset[int], parameters: Mapping[int, torch.Tensor]) -> float:
        """Tells gradients that are not averaged from another rank's; the same bits where they are the same."""
        return sum(_total(parameters[number].grad) for number in sorted(kept) if number in parameters)

    def _reduce_all(self, plan: Plan, parameters: Mapping[int, torch.Tensor], loss: float) -> float:
        """Average all gradients; gives the sum of the ranks' ``loss``.

        To the bit as :meth:`reduce` does: an attempt that is taken up again learns here what another knew.
        """
        plan.begin()
        extras = [0.0] * (_AMOUNTS + self._ranks)
        extras[_LOSS] = loss
        for bucket in plan.buckets:
            bucket.gather(self._ranks)
            if bucket.reduced.extras is not None:
                bucket.write(extras)
            self._send(bucket)
        for bucket in plan.buckets:
            self._finish(bucket)
        if plan.buckets and plan.buckets[-1].reduced.extras is not None:
            extras = plan.buckets[-1].read()
        else:
            host = torch.tensor(extras, dtype=torch.float64)
            self._groups.all_sum(host)
            extras = host.tolist()
        self.keep(plan)
        with torch.no_grad():
            for bucket in plan.buckets:
                if not bucket.lacks:
                    continue
                for place, number in enumerate(bucket.numbers):
                    if parameters[number].grad is None:
                        parameters[number].grad = bucket.average(place)
        return extras[_LOSS]

    # -- the last net

    def count(self, line: Line) -> None:
        """One more backward is done; now and then all weights are compared.

        Raises:
            RanksDiverged: they are not the same.
        """
        self._count += 1
        if self._count % CHECK_EVERY == 0 and line.plan is not None:
            self._compare_weights(line.site, line.plan)

    def _compare_weights(self, site: Site, plan: Plan) -> None:
        parameters = self._registry.alive()
        mine = [parameters[number].detach() for number in plan.numbers if number in parameters]
        total = torch.tensor([float(p.double().sum()) for p in mine], dtype=torch.float64)
        size = torch.tensor([float(p.double().abs().sum()) for p in mine], dtype=torch.float64)
        self._header.post(Kind.WEIGHTS, site, loss=len(mine))
        self._header.check()
        rows = self._groups.all_gather(torch.cat([total, size]))
        spread = rows[:, : len(mine)].amax(0) - rows[:, : len(mine)].amin(0)
        if bool((spread > ALIKE * size).any()):
            raise RanksDiverged(
                f"{site}: after {self._count} backwards the ranks' weights are no longer the same. Something in the "
                "cell changes them by what only one rank sees; make it the same on all ranks."
            )


def _kind(grad: torch.Tensor | None) -> str:
    """What a gradient is that cannot be averaged over the ranks; "" for others."""
    if grad is None or (grad.layout is torch.strided and not grad.is_complex()):
        return ""
    return "complex" if grad.is_complex() else "sparse"


def _total(grad: torch.Tensor | None) -> float:
    if grad is None:
        return 0.0
    values = grad.detach().coalesce().values() if grad.layout is torch.sparse_coo else grad.detach()
    values = torch.view_as_real(values) if values.is_complex() else values
    return float(values.sum(dtype=torch.float64))


def _check_alike(sums: Sequence[float], site: Site) -> None:
    """Gradients that are kept as they are have to be the same on all ranks; NaN is like NaN.

    Raises:
        CellError: they are not: ranks were given different data.
    """
    if len(set(map(repr, sums))) > 1:
        raise CellError(
            f"{site}: sparse or complex gradients cannot be averaged over the ranks, and those of this loop differ "
            "between them, since it gives the ranks different data. Give every rank the same, or use -n 1."
        )
