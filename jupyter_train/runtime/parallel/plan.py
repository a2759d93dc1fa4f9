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
    parts: list[list[torch.Tensor]] = field(default_factory=list)  #: by turn and rank: memory of all ranks
    turn: int = 0
    left: int = 0  #: gradients that have not come in this backward
    lacks: int = 0  #: parameters without a gradient when it was last gathered
    grads: list[torch.Tensor] = field(default_factory=list)  #: that were gathered
    averages: list[torch.Tensor] = field(default_factory=list)  #: where the averages of those come
    work: Any = None

    def gather(self, ranks: int) -> None:
        """Copy the gradients in, divided by ``ranks``; a parameter without one counts zero."""
        grads, views, averages = [], [], []
        lacks = 0
        # Two turns: a slower rank may still read what was written in the last one. It has read the one before,
        # or it would not have signalled since. So a turn ends with what is sent, not with a backward: that may fail.
        self.turn = (self.turn + 1) % len(self.outgoing)
        flat = self.outgoing[self.turn]
        dtype = flat.whole.dtype
        for ref, shape, view, average in zip(
            self.refs, self.shapes, flat.views, self.reduced.views, strict=True
        ):
            parameter = ref()
            grad = None if parameter is None else parameter.grad
            if grad is None or grad.dtype is not dtype or grad.shape != shape or grad.is_sparse:
                view.zero_()
                lacks += 1
            else:
                grads.append(grad)
                views.append(view)
                averages.append(average)
        if grads:
            torch._foreach_copy_(views, grads)
        flat.whole.div_(ranks)
        self.grads, self.averages, self.lacks = grads, averages, lacks

    def write(self, numbers: list[float]) -> None:
        """Set this rank's extras."""
        extras = self.outgoing[self.turn].extras
        assert extras is not None
        extras[:] = numbers

    def read(self) -> list[float]:
        """The sums of the extras."""
        assert self.reduced.extras is not None
        numbers: list[float] = self.reduced.extras.tolist()
        return numbers

    def add_up(self) -> None:
        """The sum of all ranks' parts, in the order of the ranks: the same bits on each."""
        first, second, *rest = self.parts[self.turn]
        torch.add(first, second, out=self.reduced.whole)
        for part in rest:
            self.reduced.whole.add_(part)


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
                parts.append(torch.frombuffer(memory, dtype=whole.dtype, count=whole.numel(), offset=at))
                at += _padded(bucket)
            bucket.parts.append(parts)
        bucket.outgoing = [_flat(parts[rank], bucket.shapes, tail) for parts in bucket.parts]


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
