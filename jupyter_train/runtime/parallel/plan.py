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


@dataclass(slots=True, eq=False)
class Bucket:
    """Gradients that travel together: one flat tensor and a view of it for each parameter."""

    numbers: list[int]  #: of the parameters, in the order of their gradients
    refs: list[weakref.ref[torch.Tensor]]
    flat: torch.Tensor
    views: list[torch.Tensor]
    extras: npt.NDArray[Any] | None  #: tail of ``flat`` for flags and the loss, in the last bucket
    shapes: list[torch.Size]  #: of the parameters
    left: int = 0  #: gradients that have not come in this backward
    lacks: int = 0  #: parameters without a gradient when it was last gathered
    grads: list[torch.Tensor] = field(default_factory=list)  #: that were gathered
    live: list[torch.Tensor] = field(default_factory=list)  #: their views
    work: Any = None

    def gather(self) -> None:
        """Copy the gradients in; a parameter without one counts zero."""
        grads, views = [], []
        lacks = 0
        dtype = self.flat.dtype
        for ref, view, shape in zip(self.refs, self.views, self.shapes, strict=True):
            parameter = ref()
            grad = None if parameter is None else parameter.grad
            if grad is None or grad.dtype is not dtype or grad.shape != shape:
                view.zero_()
                lacks += 1
            else:
                grads.append(grad)
                views.append(view)
        if grads:
            torch._foreach_copy_(views, grads)
        self.grads, self.live, self.lacks = grads, views, lacks

    def write(self, numbers: list[float]) -> None:
        """Set the extras."""
        assert self.extras is not None
        self.extras[:] = numbers

    def read(self) -> list[float]:
        """The extras."""
        assert self.extras is not None
        numbers: list[float] = self.extras.tolist()
        return numbers


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
            flat = bucket.flat
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
        sizes = [parameters[n].numel() for n in members]
        flat = torch.zeros(sum(sizes) + tail, dtype=dtype, device=device)
        views, at = [], 0
        for n, size in zip(members, sizes, strict=True):
            views.append(flat[at : at + size].view(parameters[n].shape))
            at += size
            where[n] = number
        refs = [weakref.ref(parameters[n]) for n in members]
        shapes = [parameters[n].shape for n in members]
        # An array over the same memory: a tensor costs ten times as much to write and read.
        buckets.append(Bucket(members, refs, flat, views, flat[at:].numpy() if tail else None, shapes))
    return Plan(buckets=buckets, where=where, numbers=list(order), extras_on_host=apart or not groups)


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
