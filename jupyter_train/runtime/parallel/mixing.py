"""Does a loop put samples of a batch into one another before its loss is averaged? Read from the operations it did. Pure.

What a share of the batch cannot show is not an operation by itself (every loss
sums over samples, every metric does) but one whose result goes on: a quantity
of several samples that meets single ones again, a matrix of all pairs, samples
that meet others. Such a result is followed; what counts is whether it reaches
a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from jupyter_train.runtime.parallel.aligning import Dim, Kinds, Shapes, kinds
from jupyter_train.runtime.parallel.rows import REORDERING, Order, order_after

STATISTIC = "puts a quantity of the whole batch back into its samples"
PAIRS = "compares the samples of a batch with each other"
OTHERS = "puts other samples of the batch into each sample"
BEFORE = "puts what came of the batch before into each sample"
ALONG = "runs along the samples of a batch"
_FIXES = {
    STATISTIC: "With nn.BatchNorm, or with statistics of each sample, it is split",
    PAIRS: "What is compared has to be on one rank",
}

#: their values do not depend on what they take
_FRESH = (
    "new_",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "randint_like",
)
#: sequences of different lengths, laid out anew: how many there are at each step is no quantity of the batch
_LAID_OUT = ("_pack_padded_sequence", "_pad_packed_sequence")
_OVERWRITING = ("copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_")
_OVER_ONE_DIM = frozenset(
    {"_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp",
     "sort", "topk", "cumsum_", "cumprod_"}
)  # fmt: skip
_SIZED_BY_VALUES = frozenset({"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"})
_RECURRENT = frozenset({"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation that a rank did."""

    shapes: Shapes
    ins: tuple[int, ...]  #: numbers of the tensors it took
    outs: tuple[int, ...]  #: of those it gave; behind them those of which a part was written
    bases: int = 0  #: how many of ``outs`` were written in part
    detail: Any = None  #: the arguments that matter, see `watching`
    place: Any = None  #: where the user's code did it


@dataclass(frozen=True, slots=True, kw_only=True)
class Offence:
    """One operation that a share of the batch cannot do."""

    why: str
    place: Any

    @property
    def fix(self) -> str:
        """What would let the loop be split, as a sentence; "" where nothing would."""
        return _FIXES.get(self.why, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What is known of one tensor."""

    of_batch: bool = False  #: depends on samples
    is_statistic: bool = False  #: of several samples
    leaf: int | None = None  #: handed out by a loader, as the batch of that number
    row: int | None = None  #: of one sample alone
    order: Order | None = None
    loose: int = (
        0  #: so many rows were picked by their values, which on another rank may be as many by chance
    )
    offence: Offence | None = None


_UNKNOWN = _State(of_batch=True)
_LABEL = 1 << 32


class Mixing:
    """Follows what a loop does with its samples. ``mine`` is this rank's place among the ranks that have some."""

    def __init__(self) -> None:
        self._states: dict[int, _State] = {}

    def hand_out(self, tensors: Iterable[int], batch: int) -> None:
        """A loader has handed out these tensors, in its batch of that number."""
        for number in tensors:
            self._states[number] = _State(of_batch=True, leaf=batch)

    def read(
        self,
        ops: Sequence[Op],
        ranks: Sequence[list[Shapes] | None],
        shares: Sequence[Sequence[int]],
        mine: int,
    ) -> None:
        """Follow these operations.

        Args:
            ranks: for each what the ranks with samples did, as of :func:`aligned`.
            shares: samples of those ranks, for each loader.
            mine: this rank's number among them.
        """
        for op, every in zip(ops, ranks, strict=True):
            self._step(op, every, shares, mine)

    def blame(self, tensors: Iterable[int]) -> Offence | None:
        """What stands against splitting a loop whose losses these are."""
        states = [self._states[number] for number in tensors if number in self._states]
        return next((state.offence for state in states if state.offence is not None), None)

    def _step(self, op: Op, every: list[Shapes] | None, shares: Sequence[Sequence[int]], mine: int) -> None:
        name = op.shapes.name
        if not op.ins or name.startswith(_FRESH):
            self._states.update({number: _State() for number in op.outs})
            return
        ins: list[Kinds | None] = [None] * len(op.ins)
        outs: list[Kinds | None] = [None] * len(op.outs)
        if every is not None:
            ins = [kinds([one.ins[k] for one in every], shares) for k in range(len(op.ins))]
            fewest = min(len(one.outs) for one in every)
            outs = [
                kinds([one.outs[k] for one in every], shares) if k < fewest else None
                for k in range(len(op.outs))
            ]
        taken = [
            self._taken(number, shape, dims, [share[mine] for share in shares])
            for number, shape, dims in zip(op.ins, op.shapes.ins, ins, strict=True)
        ]
        offence = self._offence(op, taken, ins, outs)
        start = 1 if name in _OVERWRITING else 0
        sources = list(zip(taken, ins, op.shapes.ins, strict=True))[start:]
        for at, number in enumerate(op.outs):
            state = _after(op, at, sources, outs[at])
            if at >= len(op.outs) - op.bases:
                before = self._states.get(number, _State())
                state = replace(
                    state,
                    of_batch=state.of_batch or before.of_batch,
                    is_statistic=(state.is_statistic or state.row is not None or before.is_statistic)
                    and not _has(outs[at], Dim.BATCH),
                    row=None,
                    order=None if before.order is None or _has(outs[at], Dim.RAGGED) else before.order,
                    offence=state.offence or before.offence,
                )
            # Places that a sort gives are used to lay samples out, most often, and to put them back.
            is_place = op.shapes.name == "sort" and at == 1
            self._states[number] = state if is_place else replace(state, offence=state.offence or offence)

    def _taken(self, number: int, shape: tuple[int, ...], dims: Kinds | None, mine: Sequence[int]) -> _State:
        state = self._states.get(number)
        if state is None:
            # Made by what cannot be seen: of the batch where it has its samples.
            state = _UNKNOWN if _has(dims, Dim.BATCH) else _State()
        if state.leaf is not None and state.order is None and dims is not None:
            dim = _samples(dims)
            if dim is not None and shape[dim] in mine:
                rows = tuple(state.leaf * _LABEL + row for row in range(shape[dim]))
                state = self._states[number] = replace(state, order=Order(rows, dim))
        return state

    # -- what stands against splitting

    def _offence(
        self, op: Op, taken: list[_State], ins: list[Kinds | None], outs: list[Kinds | None]
    ) -> Offence | None:
        for state in taken:
            if state.offence is not None:
                return state.offence
        why = _why(op, taken, ins, outs)
        return Offence(why=why, place=op.place) if why else None


def _why(op: Op, taken: list[_State], ins: list[Kinds | None], outs: list[Kinds | None]) -> str:
    name = op.shapes.name
    if name in _LAID_OUT or "batch_norm" in name:
        return ""
    start = 1 if name in _OVERWRITING else 0
    if any(_samples_twice(dims) for dims in outs) and any(state.of_batch for state in taken):
        return PAIRS if not any(_samples_twice(dims) for dims in ins) else ""
    if _runs_along(op, ins):
        return ALONG
    whole = [state for state in taken[start:] if state.is_statistic]
    single = [
        state
        for state, dims in zip(taken[start:], ins[start:], strict=True)
        if not state.is_statistic and (_has(dims, Dim.BATCH) or (_has(dims, Dim.RAGGED) and state.of_batch))
    ]
    rows = {state.row for state in taken[start:] if state.row is not None}
    if (whole or rows) and single:
        return STATISTIC
    if (len(rows) > 1 or (rows and whole)) and name not in REORDERING and prod(op.shapes.outs[0]) > 1:
        return ALONG
    return _other_samples(op, taken, ins)


def _other_samples(op: Op, taken: list[_State], ins: list[Kinds | None]) -> str:
    name = op.shapes.name
    orders = [
        state.order
        for state, dims in zip(taken, ins, strict=True)
        if state.order is not None and not state.is_statistic and _has(dims, Dim.BATCH)
    ]
    if len(orders) < 2:
        return ""
    if name == "cat":
        if op.detail % len(op.shapes.outs[0]) == orders[0].dim:
            return ""
    elif name in REORDERING and name != "stack":
        return ""
    if name in _OVERWRITING and not op.bases:
        return ""
    first = orders[0].rows
    for other in orders[1:]:
        if len(other.rows) == len(first) and other.rows != first:
            same = {row // _LABEL for row in first} == {row // _LABEL for row in other.rows}
            return OTHERS if same else BEFORE
    return ""


def _runs_along(op: Op, ins: list[Kinds | None]) -> bool:
    """One operation that by itself mixes what it finds in one dimension."""
    name, first = op.shapes.name, ins[0]
    if name in _OVER_ONE_DIM:
        return first is not None and op.detail is not None and bool(first) and first[op.detail] is Dim.BATCH
    if name.startswith(("_scaled_dot_product", "_flash_attention", "_efficient_attention")):
        key = ins[1] if len(ins) > 1 else None
        return key is not None and len(key) > 1 and key[-2] is Dim.BATCH
    if name == "convolution":
        return first is not None and Dim.BATCH in first[2:]
    if name == "native_layer_norm":
        return first is not None and Dim.BATCH in first[len(first) - op.detail :]
    if name in _RECURRENT:
        return first is not None and len(first) == 3 and first[0] is Dim.BATCH
    return False


# -- what comes out


def _after(
    op: Op, at: int, sources: list[tuple[_State, Kinds | None, tuple[int, ...]]], out: Kinds | None
) -> _State:
    """The state of one output, without what stands against it."""
    name, shape = op.shapes.name, op.shapes.outs[at]
    states = [state for state, _, _ in sources]
    of_batch = any(state.of_batch for state in states)
    if name in _LAID_OUT:
        return _State(of_batch=of_batch)
    statistics = any(state.is_statistic for state in states)
    if out is None:
        rows = {state.row for state in states if state.row is not None}
        row = _taken_row(op, at, sources)
        return _State(
            of_batch=of_batch,
            is_statistic=statistics or len(rows) > 1,
            row=row if row is not None else (rows.pop() if len(rows) == 1 and not statistics else None),
        )
    with_samples = [one for one in sources if not one[0].is_statistic and _has(one[1], Dim.BATCH)]
    if _has(out, Dim.BATCH):
        if statistics and not with_samples:
            return _State(of_batch=of_batch, is_statistic=True)  # spread over the samples
        dim = _samples(out)
        order = None
        if dim is not None and with_samples:
            known = [one[0].order for one in with_samples]
            if name.startswith("index") and with_samples[0] is not sources[0]:
                name = ""  # rows of a table, one for each sample
            order = order_after(name, op.detail, known, [one[2] for one in with_samples], shape, dim, at)
        return _State(of_batch=of_batch, order=order)
    row = _taken_row(op, at, sources)
    if row is not None:
        return _State(of_batch=True, row=row)
    loose = next((state.loose for state in states if state.loose and state.loose in shape), 0)
    if name in ("slice", "split", "unsafe_split", "split_with_sizes") and shape and not statistics:
        given, at_dim = sources[0][1], op.detail[0] % len(shape)
        if given is not None and given[at_dim] is not Dim.SAME:
            loose = shape[at_dim]
    if name in _SIZED_BY_VALUES or (name == "index" and op.detail is not None and "mask" in op.detail[-1:]):
        loose = shape[0] if shape else 0
    if loose and of_batch:
        return _State(of_batch=True, loose=loose)
    if _has(out, Dim.RAGGED):
        return _State(
            of_batch=of_batch, is_statistic=statistics and all(s.is_statistic for s in states if s.of_batch)
        )
    rows = {state.row for state in states if state.row is not None}
    several = any(
        state.of_batch
        and not state.is_statistic
        and (_has(dims, Dim.BATCH) or _has(dims, Dim.RAGGED) or state.loose)
        for state, dims, _ in sources
    )
    if statistics or several or len(rows) > 1:
        return _State(of_batch=of_batch, is_statistic=True)
    return _State(of_batch=of_batch, row=rows.pop() if rows else None)


def _taken_row(op: Op, at: int, sources: list[tuple[_State, Kinds | None, tuple[int, ...]]]) -> int | None:
    """The one sample that is picked out of a tensor, where that is what is done."""
    name, detail = op.shapes.name, op.detail
    if name not in ("select", "unbind", "slice") or not sources or sources[0][0].order is None:
        return None
    order, ndim = sources[0][0].order, len(sources[0][2])
    if name == "select" and detail[0] % ndim == order.dim:
        return order.rows[int(detail[1])]
    if name == "unbind" and detail % ndim == order.dim and at < len(order.rows):
        return order.rows[at]
    if name == "slice" and detail[0] % ndim == order.dim:
        picked: tuple[int, ...] = order.rows[slice(*detail[1:])]
        return picked[0] if len(picked) == 1 else None
    return None


def _has(dims: Kinds | None, kind: Dim) -> bool:
    return dims is not None and kind in dims


def _samples(dims: Kinds) -> int | None:
    return dims.index(Dim.BATCH) if dims.count(Dim.BATCH) == 1 else None


def _samples_twice(dims: Kinds | None) -> bool:
    return dims is not None and dims.count(Dim.BATCH) > 1
