"""Around a backward: weigh the loss, average the gradients before anything reads them, make the loss the global one.

The whole ``.grad`` is averaged, never summed: that is idempotent, so that
accumulated gradients cannot count twice. Buckets are reduced while backward
still runs, all but the last, which carries flags and the loss and is reduced
when backward has returned. When a flag says that some rank saw other gradients
than planned, the ranks compare notes and reduce once more from the gradients,
which are still their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jupyter_train.errors import CellError, RanksDiverged
from jupyter_train.runtime.parallel.errors import NotSplittable
from jupyter_train.runtime.parallel.feed import Feed, Pass
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.header import Header, Kind
from jupyter_train.runtime.parallel.learning import Learner
from jupyter_train.runtime.parallel.plan import Bucket, Plan, make_plan
from jupyter_train.runtime.parallel.registry import Registry, leaves
from jupyter_train.runtime.parallel.remarks import Remarks
from jupyter_train.runtime.parallel.shares import Share
from jupyter_train.runtime.parallel.sites import Site, Sites
from jupyter_train.runtime.parallel.weighing import Weigher, Weights, corrected

CHECK_EVERY = 256  #: backwards between comparisons of all weights
FLAG, STOP, LOSS, AMOUNTS = 0, 1, 2, 3  #: places of the extras
_ALIKE = 1e-5  #: relative; hosts of different make round differently


@dataclass(slots=True, eq=False)
class _Line:
    """What is known of one line that calls backward."""

    plan: Plan | None = None
    overlaps: bool = True  #: buckets may start before backward has returned


class Reducer:
    """Makes each backward of a rank that of one process. Main thread (hooks: whatever thread runs autograd)."""

    def __init__(
        self,
        *,
        groups: Groups,
        header: Header,
        sites: Sites,
        feed: Feed,
        remarks: Remarks,
        rates: Callable[[], int],
        stop_requested: Callable[[], bool],
        on_stop: Callable[[], None],
        on_trained: Callable[[Pass, Site], None],
    ) -> None:
        self.active = True
        self.registry = Registry(self._on_gradient)
        self._groups = groups
        self._ranks = groups.world_size
        self._header = header
        self._sites = sites
        self._feed = feed
        self._remarks = remarks
        self._rates = rates
        self._stop_requested = stop_requested
        self._on_stop = on_stop
        self._on_trained = on_trained
        self._learner = Learner(self.registry, groups, remarks)
        self._weigher = Weigher(
            groups=groups,
            header=header,
            remarks=remarks,
            is_weight=self._is_weight,
            ask_uneven=self._ask_uneven,
        )
        self._lines: dict[Site, _Line] = {}
        self._count = 0
        # Of the backward under way:
        self._running = False
        self._plan: Plan | None = None
        self._line = _Line()
        self._unplanned = False
        self._late = False
        self._came: set[int] = set()

    def _is_weight(self, leaf: torch.Tensor) -> bool:
        return self.registry.number(leaf) is not None

    def _ask_uneven(self) -> None:
        self._feed.wants_uneven = True

    # -- the backward

    def nested(self) -> None:
        """A reentrant checkpoint runs its own backward inside: gradients may come in several pieces."""
        self._line.overlaps = False

    def backward(
        self, original: Callable[..., None], site: Site, tensors: Any, arguments: tuple[Any, ...]
    ) -> float | None:
        """Run ``original`` so that gradients, and the loss, become those of one process.

        Returns:
            The global loss, None where it is not known.

        Raises:
            RanksDiverged, PeerLost, NotSplittable.
        """
        if not self.active:
            original(tensors, *arguments)
            return None
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        root = roots[0] if len(roots) == 1 and roots[0].numel() == 1 and _is_plain(arguments[0]) else None
        current = self._feed.current
        share = current.share if current is not None else None
        self.registry.wake()
        line = self._lines.get(site)
        if line is None:
            line = self._lines[site] = _Line()
        known = self._prepare(site, line, roots, root, share)
        weights = Weights(value=1.0 / self._ranks)
        digest = share.digest if share is not None else 0
        if known is not None and share is not None:
            profile, reading = known
            self._header.post(Kind.BACKWARD, site, batch=digest, rates=self._rates(), loss=reading.digest)
            exactly = profile.needs_exchange or (line.plan is not None and line.plan.has_gradients())
            weights = self._weigher.weigh(profile, reading, share, exactly=exactly)
        else:
            self._header.post(Kind.BACKWARD, site, batch=digest, rates=self._rates())
        self._say_where_whole(site, current, share)
        value = self._value(root, weights)
        self._run(original, line, tensors, arguments, weights)
        loss = self._finish(site, line, roots, weights, share, value)
        if current is not None:
            current.backwards += 1
            self._on_trained(current, site)
        retains = bool(arguments[1] or arguments[2])
        if loss is not None and loss == loss:
            if root is not None and not retains:
                root.data.fill_(loss)
            return loss
        return None

    def check_grad(self, inputs: Any) -> None:
        """``autograd.grad`` is asked for gradients.

        Raises:
            NotSplittable: they are those of parameters, on a share of a batch.
        """
        current = self._feed.current if self.active and not self._running else None
        if current is None or current.share is None:
            return
        for one in [inputs] if isinstance(inputs, torch.Tensor) else list(inputs):
            if isinstance(one, torch.nn.Parameter) or (isinstance(one, torch.Tensor) and self._is_weight(one)):
                raise NotSplittable(
                    f"{self._sites.here()}: autograd.grad with respect to parameters cannot be computed on shares of "
                    "the batch. Run this cell with  --strategy none  (every rank computes the whole batch) or  -n 1."
                )

    def _prepare(
        self,
        site: Site,
        line: _Line,
        roots: Sequence[torch.Tensor],
        root: torch.Tensor | None,
        share: Share | None,
    ) -> Any:
        """What is known of the loss; the first time, the ranks find out together."""
        if share is None:
            return None
        if root is None:
            raise NotSplittable(
                f"{site}: backward() of something that is not one number cannot be computed on shares of the batch. "
                "Run this cell with  --strategy none  or  -n 1."
            )
        if root.grad_fn is None:
            return None  # the root is a parameter itself: no data in it
        known = self._weigher.read(site, root)
        if known is None:
            self._header.post(Kind.STUDY, site, batch=share.digest, rates=self._rates())
            self._header.check()
            self._learner.learn([root.grad_fn], self._namespaces(), str(site))
            known = self._weigher.study(site, root, share)
        return known

    def _namespaces(self) -> list[Mapping[str, Any]]:
        """The names that the line which calls backward can see, its own first."""
        frame = self._sites.frame(2)
        out: list[Mapping[str, Any]] = []
        while frame is not None:
            if frame.f_locals is not frame.f_globals:
                out.append(frame.f_locals)
            if not any(frame.f_globals is one for one in out):
                out.append(frame.f_globals)
            if frame.f_code.co_filename == self._sites.cell_file and frame.f_code.co_name == "<module>":
                break
            frame = frame.f_back
        return out

    def _say_where_whole(self, site: Site, current: Pass | None, share: Share | None) -> None:
        if share is None and self._lines[site].plan is None and (current is None or not current.why_whole):
            self._remarks.say(
                f"{site}: this backward() belongs to no loop over a DataLoader that was split, so every rank computes "
                "it whole: right, but not faster"
            )

    def _value(self, root: torch.Tensor | None, weights: Weights) -> float:
        """This rank's part of the global loss."""
        if root is None:
            return float("nan")
        if weights.value == 0.0:
            return 0.0
        return float(root.detach()) * weights.value

    def _run(
        self,
        original: Callable[..., None],
        line: _Line,
        tensors: Any,
        arguments: tuple[Any, ...],
        weights: Weights,
    ) -> None:
        handles = [node.register_prehook(_scaler(factor)) for node, factor in weights.nodes]
        if weights.root != 1.0:
            one = tensors if isinstance(tensors, torch.Tensor) else tensors[0]
            given = arguments[0]
            given = given if given is None or isinstance(given, torch.Tensor) else given[0]
            scale = torch.full_like(one, weights.root) if given is None else given * weights.root
            arguments = (scale if isinstance(tensors, torch.Tensor) else [scale], *arguments[1:])
        self._line, self._plan = line, line.plan
        self._unplanned = self._late = False
        self._came.clear()
        if line.plan is not None:
            line.plan.begin()
        self._running = True
        try:
            original(tensors, *arguments)
        finally:
            self._running = False
            for handle in handles:
                handle.remove()

    # -- gradients

    def _on_gradient(self, number: int) -> None:
        if not self._running:
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
        while self._line.overlaps and plan.next < last and plan.buckets[plan.next].left == 0:
            self._start(plan.buckets[plan.next])
            plan.next += 1

    def _start(self, bucket: Bucket) -> None:
        bucket.gather()
        bucket.flat.div_(self._ranks)
        if self._plan is not None and self._plan.next == 0:
            self._header.check()
        bucket.work = self._groups.data.allreduce([bucket.flat])

    def _finish(
        self,
        site: Site,
        line: _Line,
        roots: Sequence[torch.Tensor],
        weights: Weights,
        share: Share | None,
        value: float,
    ) -> float | None:
        """Reduce what is left, and again where some rank saw something else than planned."""
        plan = line.plan
        told: list[float] | None = None
        if plan is not None:
            told = self._reduce(plan, weights, share, value)
            if told[STOP]:
                self._on_stop()
        fits = told is not None and told[FLAG] == 0.0
        factor = None
        if told is not None and weights.law is not None and share is not None:
            factor = corrected(weights, weights.law, told[AMOUNTS:], share)
        if plan is not None and told is not None and fits and factor is None:
            _put_back(plan, None)
            loss = told[LOSS]
        else:
            if factor is not None and plan is not None:
                self._weigher.distrust(site, weights.digest)
                value = self._correct(plan, factor, value)
            plan, loss = self._again(site, line, roots, weights, value)
        self._count += 1
        if self._count % CHECK_EVERY == 0:
            self._compare_weights(site, plan)
        return loss

    def _reduce(self, plan: Plan, weights: Weights, share: Share | None, value: float) -> list[float]:
        """Start the buckets that are left, wait for all; the extras of all ranks together."""
        extras = [0.0] * (AMOUNTS + self._ranks)
        extras[STOP] = float(self._stop_requested())
        extras[LOSS] = value
        if share is not None and weights.law is not None:
            extras[AMOUNTS + share.rank] = weights.amount
        last = len(plan.buckets) - 1
        for number in range(plan.next, len(plan.buckets)):
            plan.next = number
            bucket = plan.buckets[number]
            if number == last:
                bucket.gather()
                bucket.flat.div_(self._ranks)
                extras[FLAG] = float(self._differs(plan))
                if bucket.extras is not None:
                    bucket.write(extras)
                if number == 0:
                    self._header.check()
                bucket.work = self._groups.data.allreduce([bucket.flat])
            else:
                self._start(bucket)
        for bucket in plan.buckets:
            self._groups.wait(bucket.work)
        tail = plan.buckets[-1].extras if plan.buckets else None
        if tail is None:
            if not plan.buckets:
                self._header.check()
                extras[FLAG] = float(self._differs(plan))
            host = torch.tensor(extras, dtype=torch.float64)
            self._groups.all_sum(host)
            numbers: list[float] = host.tolist()
            return numbers
        out: list[float] = plan.buckets[-1].read()
        return out

    def _differs(self, plan: Plan) -> bool:
        """Other gradients came than planned. One left over from before would do for the sum, but who came is what counts."""
        if self._unplanned or self._late or self.registry.has_news or len(self._came) != len(plan.numbers):
            return True
        return any(bucket.lacks for bucket in plan.buckets)

    def _correct(self, plan: Plan, factor: float, value: float) -> float:
        """This rank's loss counted otherwise than supposed: make its gradients right before they are averaged again."""
        grads = [grad for bucket in plan.buckets for grad in bucket.grads]
        if factor == 0.0:
            torch._foreach_zero_(grads)
            return 0.0
        torch._foreach_mul_(grads, factor)
        return value * factor

    def _again(
        self, site: Site, line: _Line, roots: Sequence[torch.Tensor], weights: Weights, value: float
    ) -> tuple[Plan, float | None]:
        """Agree on the gradients that there are, and reduce them from the start."""
        self._header.check()
        nodes = [root.grad_fn for root in roots]
        self._learner.learn(nodes, self._namespaces(), str(site))
        if self._late:
            line.overlaps = False
        parameters = self.registry.alive()
        # Parameters inside a reentrant checkpoint are not in the graph; new ones were not watched.
        mine = {number for number in self._came if number in parameters}
        mine |= {number for number in map(self.registry.number, leaves(nodes)) if number is not None}
        mine = {number for number in mine if parameters[number].grad is not None}
        for number in mine:
            _check_kind(parameters[number], site)
        told = self._groups.exchange((sorted(mine), line.overlaps, float(value), self._stop_requested()))
        used = sorted(set().union(*(numbers for numbers, *_ in told)), reverse=True)
        missing = [number for number in used if number not in parameters]
        if missing:
            raise RanksDiverged(
                f"{site}: another rank's loss depends on parameters that are gone on this one"
            )
        line.overlaps = all(overlaps for _, overlaps, _, _ in told)
        if line.plan is None or line.plan.numbers != used or line.plan.is_stale():
            line.plan = make_plan(used, parameters, extras=AMOUNTS + self._ranks)
        plan = line.plan
        plan.begin()
        for bucket in plan.buckets:
            bucket.gather()
            bucket.flat.div_(self._ranks)
            bucket.work = self._groups.data.allreduce([bucket.flat])
        for bucket in plan.buckets:
            self._groups.wait(bucket.work)
        _put_back(plan, parameters)
        if any(stop for *_, stop in told):
            self._on_stop()
        loss = sum(value for _, _, value, _ in told)
        return plan, loss if loss == loss else None

    # -- the last net

    def _compare_weights(self, site: Site, plan: Plan) -> None:
        parameters = self.registry.alive()
        mine = [parameters[number] for number in plan.numbers if number in parameters]
        with torch.no_grad():
            total = torch.tensor([float(p.detach().double().sum()) for p in mine], dtype=torch.float64)
            size = torch.tensor([float(p.detach().double().abs().sum()) for p in mine], dtype=torch.float64)
        self._header.post(Kind.WEIGHTS, site, loss=len(mine))
        self._header.check()
        rows = self._groups.all_gather(torch.cat([total, size]))
        spread = rows.amax(0) - rows.amin(0)
        count = len(mine)
        if bool((spread[:count] > _ALIKE * size).any()):
            raise RanksDiverged(
                f"{site}: after {self._count} backwards the ranks' weights are no longer the same. Something in the cell "
                "changes them by what only one rank sees; make it the same on all ranks."
            )


def _is_plain(given: Any) -> bool:
    """No gradient was given for the root, or one number."""
    if given is None:
        return True
    one = given if isinstance(given, torch.Tensor) else (given[0] if len(given) == 1 else None)
    return one is None and not isinstance(given, torch.Tensor) or (one is not None and one.numel() == 1)


def _scaler(factor: float) -> Callable[[Any], Any]:
    def scale(grads: Any) -> Any:
        if factor == 0.0:  # set, not multiplied: an empty share may be 0/0
            return tuple(None if grad is None else torch.zeros_like(grad) for grad in grads)
        return tuple(None if grad is None else grad * factor for grad in grads)

    return scale


def _put_back(plan: Plan, parameters: Mapping[int, torch.Tensor] | None) -> None:
    """Copy the averages into the gradients; with ``parameters``, also where this rank had none."""
    with torch.no_grad():
        for bucket in plan.buckets:
            if bucket.grads:
                torch._foreach_copy_(bucket.grads, bucket.live)
            if parameters is not None and bucket.lacks:
                for number, view in zip(bucket.numbers, bucket.views, strict=True):
                    if parameters[number].grad is None:
                        parameters[number].grad = view.clone()


def _check_kind(leaf: torch.Tensor, site: Site) -> None:
    grad = leaf.grad
    if grad is not None and (grad.layout is not torch.strided or grad.is_complex()):
        kind = "complex" if grad.is_complex() else "sparse"
        raise CellError(
            f"{site}: {kind} gradients cannot be averaged over the ranks"
            + (" (an Embedding with sparse=True: leave it out)" if kind == "sparse" else "")
            + ". Run this cell with  --strategy none  or  -n 1."
        )
