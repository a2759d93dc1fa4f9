"""Writes down what a loop does with the first batches that it gets shares of, operation by operation.

A mode of torch's dispatcher, so that the code of modules and libraries is seen
as well as the cell's. On only between the hand-out of such a batch and the next
one, and off inside backward, optimizers and our own code. Costs some ten
microseconds an operation while it is on, and nothing afterwards.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from jupyter_train.runtime.parallel.aligning import Shapes
from jupyter_train.runtime.parallel.mixing import Op

BATCHES = 2  #: of each loop that are watched
MOST_OPS = 20_000  #: beyond that nothing is said of the loop
MOST_PICKED = 8192  #: numbers in an index that are read


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The log of one rank. Main thread; nothing in it may fail the cell."""

    def __init__(self, place: Callable[[], Any]) -> None:
        """Not on yet.

        Args:
            place: where the user's code is at the moment.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._place = place
        self.is_on = False
        self._ops: list[Op] = []
        self._count = 0
        self._numbers: dict[int, tuple[weakref.ref[torch.Tensor], int]] = {}
        self._written: dict[Any, tuple[int, ...]] = {}
        self._next = 0
        self.has_lost = False  #: more was done than is written down, or something could not be read

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Under other modes torch.compile gives a function up for good; what is compiled is not looked into."""
        return True

    @classmethod
    def is_infra_mode(cls) -> bool:
        """As above, in other versions of torch."""
        return True

    # -- on and off, not always in the order in which the cell's own modes come and go

    def on(self) -> None:
        """Write down what comes."""
        if not self.is_on and not self.has_lost:
            torch._C._push_on_torch_dispatch_stack(self)
            self.is_on = True

    def off(self) -> None:
        """Write nothing down."""
        if not self.is_on:
            return
        depth = torch._C._len_torch_dispatch_stack()
        if not any(torch._C._get_dispatch_stack_at(at) is self for at in range(depth)):
            return  # taken off by whoever traces this code, and put back when that is done
        self.is_on = False
        above = []
        while torch._C._len_torch_dispatch_stack() > 0:
            mode = torch._C._pop_torch_dispatch_stack(None)
            if mode is self:
                break
            above.append(mode)
        for mode in reversed(above):
            torch._C._push_on_torch_dispatch_stack(mode)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Off for a while."""
        before = self.is_on
        self.off()
        try:
            yield
        finally:
            if before:
                self.on()

    # -- what was written down

    def take(self) -> list[Op]:
        """What was written down since the last time."""
        ops, self._ops = self._ops, []
        return ops

    def forget(self) -> None:
        """The loop has been watched long enough."""
        self.off()
        self._ops = []
        self._count = 0
        self._numbers = {}
        self.has_lost = False

    def number(self, tensor: torch.Tensor) -> int:
        """A number for that tensor, while it lives."""
        known = self._numbers.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        self._next += 1
        self._numbers[id(tensor)] = weakref.ref(tensor), self._next
        return self._next

    def same_as(self, output: torch.Tensor, given: torch.Tensor) -> None:
        """``output`` holds the samples of ``given``, by an operation of ours that was not written down."""
        if self.is_on:
            self._add("like", [given], [(tuple(given.shape), given)], [output], (), None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.has_lost:
            return func(*args, **kwargs)
        ins = [one for one in _tensors(args) if one is not None]
        if kwargs:
            ins += [one for one in _tensors(kwargs.values()) if one is not None]
        shapes = [(tuple(one.shape), one) for one in ins]  # before: it may change them in place
        result = func(*args, **kwargs)
        try:
            outs = [one for one in _tensors((result,)) if one is not None]
            if any(isinstance(one, FakeTensor) for one in (*ins, *outs)):
                return result  # torch.compile traces
            name = func._schema.name.partition("::")[2]
            self._add(name, ins, shapes, outs, self._writes(func), args)
        except Exception:  # a tensor of another kind: nothing is said then
            self.has_lost = True
        return result

    def _writes(self, func: Any) -> tuple[int, ...]:
        """Which arguments ``func`` changes in place."""
        known = self._written.get(func)
        if known is None:
            known = self._written[func] = tuple(
                at
                for at, one in enumerate(func._schema.arguments)
                if one.alias_info is not None and one.alias_info.is_write
            )
        return known

    def _add(
        self,
        name: str,
        ins: Sequence[torch.Tensor],
        shapes: Sequence[tuple[tuple[int, ...], torch.Tensor]],
        outs: list[torch.Tensor],
        writes: tuple[int, ...],
        args: Any,
    ) -> None:
        if not outs and not writes:
            return
        self._count += 1
        if self._count > MOST_OPS:
            self.has_lost = True
            return
        bases = []
        for at in writes:
            written = args[at] if at < len(args) else None
            for one in [written] if isinstance(written, torch.Tensor) else (written or ()):
                if not any(one is out for out in outs):
                    outs.append(one)
                if one._base is not None:
                    bases.append(one._base)
        self._ops.append(
            Op(
                shapes=Shapes(
                    name,
                    tuple(shape for shape, _ in shapes),
                    tuple(tuple(one.shape) for one in (*outs, *bases)),
                ),
                ins=tuple(map(self.number, ins)),
                outs=tuple(map(self.number, (*outs, *bases))),
                bases=len(bases),
                detail=_detail(name, args) if args else None,
                place=self._place(),
            )
        )


def _tensors(values: Any) -> Iterator[torch.Tensor | None]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            for one in value:
                if isinstance(one, torch.Tensor):
                    yield one


def _detail(name: str, args: Sequence[Any]) -> Any:
    """The arguments by which an operation reorders samples, or the dimension along which it runs."""

    def given(at: int, otherwise: Any) -> Any:
        return args[at] if len(args) > at else otherwise

    if name in ("select", "slice"):
        return (
            tuple(args[1:])
            if name == "select"
            else (given(1, 0), given(2, None), given(3, None), given(4, 1))
        )
    if name == "index":
        return [None if one is None else _picks(one) for one in args[1]] + ["mask"] * any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
    if name == "index_select":
        return args[1], _picks(args[2])
    if name == "flip":
        return list(args[1])
    if name == "roll":
        return list(args[1]), list(given(2, []))
    if name in ("cat", "stack"):
        return given(1, 0)
    if name == "unbind":
        return given(1, 0)
    if name in ("split", "unsafe_split", "split_with_sizes"):
        return given(2, 0), args[1]
    if name == "native_layer_norm":
        return len(args[1])
    if name in ("sort", "topk"):
        at = 1 if name == "sort" else 2
        numbers = [one for one in args[at:] if isinstance(one, int) and not isinstance(one, bool)]
        return (numbers[0] if numbers else -1) if args[0].is_floating_point() else None
    return args[1] if len(args) > 1 and isinstance(args[1], int) else None


def _picks(index: torch.Tensor) -> Any:
    """The rows that a one-dimensional index picks; "?" where it is something else."""
    if index.dim() != 1 or index.numel() > MOST_PICKED:
        return "?"
    if index.dtype in (torch.bool, torch.uint8):
        index = index.nonzero()[:, 0]
    return tuple(index.tolist())
