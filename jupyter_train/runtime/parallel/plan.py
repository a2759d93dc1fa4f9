"""Flat buckets of gradients, and the order in which they are reduced."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch

FIRST_BUCKET_BYTES = 1 << 20  #: small, so that the first reduction starts early
BUCKET_BYTES = 25 << 20
PAGE_BYTES = 4096
LARGE = 1 << 18  #: numbers of a gradient that does not stay in a core's cache: it goes in a call of its own
TURNS = 2  #: of shared memory: see `Bucket.gather`


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """One flat tensor, and what lies in it."""

    whole: torch.Tensor
    views: list[torch.Tensor]  #: of each parameter
    extras: (
        npt.NDArray[Any] | None
    )  #: the tail for flags and the loss: an array costs a tenth of a tensor to use


@dataclass(slots=True, eq=False)
class Bucket:
    """Gradients that travel together."""

    numbers: list[int]  #: of the parameters, in the order of their gradients
    refs: list[weakref.ref[torch.Tensor]]
    shapes: list[torch.Size]
    outgoing: list[
        Flat
    ]  #: this rank's gradients, by turns; the only one is ``reduced`` itself where gloo reduces in place
    reduced: Flat
    parts: list[list[Flat]] = field(default_factory=list)  #: by turn and rank: memory of all ranks
    turn: int = 0
    left: int = 0  #: gradients that have not come in this backward
    lacks: int = 0  #: parameters without a gradient when it was last gathered
    grads: list[torch.Tensor] = field(default_factory=list)  #: that were gathered
    places: list[int] = field(default_factory=list)  #: of those
    work: Any = None
    large: frozenset[int] = field(init=False)  #: places

    def __post_init__(self) -> None:
        self.large = frozenset(n for n, shape in enumerate(self.shapes) if shape.numel() >= LARGE)

    def gather(self, ranks: int) -> None:
        """Copy the gradients in, divided by ``ranks``; a parameter without one counts zero."""
        # Two turns: a slower rank may still read what was written in the last one. It has read the one before,
        # or it would not have signalled since. So a turn ends with what is sent, not with a backward: that may fail.
        self.turn = (self.turn + 1) % len(self.outgoing)
        flat = self.outgoing[self.turn]
        dtype, large = flat.whole.dtype, self.large
        self.grads, self.places = grads, places = [], []
        small, theirs = [], []
        with torch.no_grad():
            for place, (ref, shape, view) in enumerate(zip(self.refs, self.shapes, flat.views, strict=True)):
                parameter = ref()
                grad = None if parameter is None else parameter.grad
                if grad is None or grad.dtype is not dtype or grad.shape != shape or grad.is_sparse:
                    view.zero_()
                    continue
                grads.append(grad)
                places.append(place)
                if place in large:
                    torch.div(grad, ranks, out=view)
                else:
                    small.append(view)
                    theirs.append(grad)
            if small:
                torch._foreach_copy_(small, theirs)
            if not large:
                flat.whole.div_(ranks)
            elif small:
                torch._foreach_div_(small, ranks)
        self.lacks = len(flat.views) - len(grads)

    def write(self, numbers: list[float]) -> None:
        """Set this rank's extras."""
        extras = self.outgoing[self.turn].extras
        assert extras is not None
        extras[:] = numbers

    def read(self) -> list[float]:
        """The sums of the extras."""
        total: Any = self.reduced.extras
        if self.parts:
            first, *others = (part.extras for part in self.parts[self.turn])
            total = first
            for extras in others:
                total = total + extras
        numbers: list[float] = total.tolist()
        return numbers

    def keep(self) -> None:
        """Put the averages in place of the gradients that were gathered.

        All ranks' parts are added in the order of the ranks: the same bits on each.
        """
        if self.parts and self.large:
            self._keep_one_by_one()
            return
        if self.parts:
            first, second, *rest = (part.whole for part in self.parts[self.turn])
            torch.add(first, second, out=self.reduced.whole)
            for part in rest:
                self.reduced.whole.add_(part)
        if self.grads:
            torch._foreach_copy_(self.grads, [self.reduced.views[place] for place in self.places])

    def _keep_one_by_one(self) -> None:
        first, second, *rest = (part.views for part in self.parts[self.turn])
        small, theirs = [], []
        for place, grad in zip(self.places, self.grads, strict=True):
            if place not in self.large:
                small.append(place)
                theirs.append(grad)
                continue
            torch.add(first[place], second[place], out=grad)
            for part in rest:
                grad.add_(part[place])
        if small:
            # Not in the gradients themselves: two parameters may have been given the same tensor.
            sums = torch._foreach_add([first[place] for place in small], [second[place] for place in small])
            for part in rest:
                torch._foreach_add_(sums, [part[place] for place in small])
            torch._foreach_copy_(theirs, sums)

    def average(self, place: int) -> torch.Tensor:
        """A new tensor with the average of the gradients there."""
        if not self.parts:
            return self.reduced.views[place].clone()
        first, *rest = (part.views[place] for part in self.parts[self.turn])
        total = first.clone()
        for part in rest:
            total.add_(part)
        return total


@dataclass(slots=True, eq=False)
class Plan:
    """Buckets in the order in which their gradients come."""

    buckets: list[Bucket]
    where: dict[int, int]  #: number of a parameter → its bucket
    numbers: list[int]
    extras_on_host: (
        bool  #: the last bucket has no room for numbers that must be exact and be read: they go apart
    )
    next: int = field(default=0)

    def begin(self) -> None:
        """A backward begins."""
        self.next = 0
        for bucket in self.buckets:
            bucket.left = len(bucket.numbers)
            bucket.work = None

    def is_stale(self) -> bool:
        """A parameter has died or changed its shape, type or device since the plan was made."""
        for bucket in self.buckets:
            flat = bucket.reduced.whole
            for ref, shape in zip(bucket.refs, bucket.shapes, strict=True):
                parameter = ref()
                if parameter is None or parameter.dtype != flat.dtype or parameter.shape != shape:
                    return True
                if parameter.device != flat.device:
                    return True
        return False

    def has_gradients(self) -> bool:
        """Some parameter has a gradient already: this backward adds to it."""
        for bucket in self.buckets:
            for ref in bucket.refs:
                parameter = ref()
                if parameter is not None and parameter.grad is not None:
                    return True
        return False


def make_plan(order: Sequence[int], parameters: dict[int, torch.Tensor], *, extras: int) -> Plan:
    """A plan for the parameters numbered ``order``, the first gradients first.

    A function of the parameters' order, sizes and types, so that it comes out
    the same on all ranks. ``extras`` numbers ride in the last bucket.
    """
    groups = list(_grouped(order, parameters))
    last_type = groups[-1][0] if groups else (torch.device("cpu"), torch.float64)
    apart = last_type[0].type != "cpu" or last_type[1] not in (torch.float32, torch.float64)
    buckets = []
    where = {}
    for number, ((device, dtype), members) in enumerate(groups):
        tail = extras if number == len(groups) - 1 and not apart else 0
        for n in members:
            where[n] = number
        shapes = [parameters[n].shape for n in members]
        size = sum(shape.numel() for shape in shapes) + tail
        flat = _flat(torch.zeros(size, dtype=dtype, device=device), shapes, tail)
        refs = [weakref.ref(parameters[n]) for n in members]
        buckets.append(Bucket(members, refs, shapes, [flat], flat))
    return Plan(buckets=buckets, where=where, numbers=list(order), extras_on_host=apart or not groups)


def _flat(whole: torch.Tensor, shapes: Sequence[torch.Size], tail: int) -> Flat:
    views, at = [], 0
    for shape in shapes:
        size = shape.numel()
        views.append(whole[at : at + size].view(shape))
        at += size
    return Flat(whole, views, whole[at:].numpy() if tail else None)


def shared_bytes(plan: Plan, ranks: int) -> int:
    """Memory that :func:`share` takes: of the buckets on the host."""
    return sum(_padded(bucket) for bucket in plan.buckets if _on_host(bucket)) * ranks * TURNS


def share(plan: Plan, memory: memoryview, *, rank: int, ranks: int) -> None:
    """Let the buckets on the host go through ``memory``, which all ranks see."""
    at = 0
    for bucket in plan.buckets:
        if not _on_host(bucket):
            continue
        whole = bucket.reduced.whole
        tail = 0 if bucket.reduced.extras is None else len(bucket.reduced.extras)
        for _ in range(TURNS):
            parts = []
            for _ in range(ranks):
                part = torch.frombuffer(memory, dtype=whole.dtype, count=whole.numel(), offset=at)
                parts.append(_flat(part, bucket.shapes, tail))
                at += _padded(bucket)
            bucket.parts.append(parts)
        bucket.outgoing = [parts[rank] for parts in bucket.parts]


def _on_host(bucket: Bucket) -> bool:
    return bucket.reduced.whole.device.type == "cpu"


def _padded(bucket: Bucket) -> int:
    """Bytes of one part, on pages of its own: ranks that write do not slow down others that read."""
    size = bucket.reduced.whole.nbytes
    return size + -size % PAGE_BYTES


def _grouped(
    order: Iterable[int], parameters: dict[int, torch.Tensor]
) -> Iterable[tuple[tuple[torch.device, torch.dtype], list[int]]]:
    open_: dict[tuple[torch.device, torch.dtype], tuple[list[int], int]] = {}
    done: list[tuple[tuple[torch.device, torch.dtype], list[int]]] = []
    for number in order:
        parameter = parameters[number]
        key = (parameter.device, parameter.dtype)
        members, size = open_.get(key, ([], 0))
        members.append(number)
        size += parameter.numel() * parameter.element_size()
        open_[key] = (members, size)
        if size >= (BUCKET_BYTES if done else FIRST_BUCKET_BYTES):
            done.append((key, members))
            del open_[key]
    done.extend((key, members) for key, (members, _) in open_.items())
    # The numbers that must be exact ride in the last bucket: let it be one that can hold them.
    done.sort(key=lambda item: item[0][0].type == "cpu" and item[0][1] in (torch.float32, torch.float64))
    return done
