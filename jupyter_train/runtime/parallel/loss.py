"""What a loss is made of: from its graph to the factor that makes the average over ranks the value of one process.

A loss that is a sum of terms, each a mean or a sum over the samples of the
batch, can be computed on shares of the batch and put together exactly: a mean
over ``d_r`` elements on rank ``r`` counts ``N·d_r/Σd`` in the average over the
``N`` ranks, a sum counts ``N``. Anything else that looks at the whole batch
(the root of a mean, a ratio of sums, a matrix of all pairs) cannot.

``walk`` reads the graph from the loss down to where the batch was reduced. The
first time it classifies every node; later it only follows the recorded visits
and compares names.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NoReturn

import torch

from jupyter_train.runtime.parallel.errors import NotSplittable

MOST_VISITS = 400
MOST_TERMS = 16
_SCALAR_LINEAR = (
    "AddBackward0", "SubBackward0", "RsubBackward1", "NegBackward0", "ToCopyBackward0", "ViewBackward0",
    "UnsafeViewBackward0", "ReshapeAliasBackward0", "SqueezeBackward0", "SqueezeBackward1", "UnsqueezeBackward0",
    "CloneBackward0", "AliasBackward0", "StackBackward0", "CatBackward0", "SelectBackward0", "UnbindBackward0",
    "SliceBackward0", "ExpandBackward0", "PermuteBackward0", "TBackward0", "TransposeBackward0",
)  # fmt: skip
_REGULARIZER = (
    "Pow", "Abs", "Mul", "Add", "Sub", "Rsub", "Norm", "LinalgVectorNorm", "Neg", "Sum", "Mean", "Div", "Sqrt",
    "Square", "View", "Exp", "Log", "Softplus", "Stack", "Cat", "Unsqueeze", "Squeeze", "Select", "T", "Mm", "Trace",
    "Reshape", "Clone", "ToCopy", "Max", "Clamp", "Relu", "Transpose", "LinalgMatrixNorm", "Foreach",
)  # fmt: skip
_ACROSS = ("MeanBackward1", "SumBackward1", "VarBackward0", "StdBackward0", "VarMeanBackward0", "StdMeanBackward0",
           "LogsumexpBackward0", "SoftmaxBackward0", "LogSoftmaxBackward0")  # fmt: skip


class Part(IntEnum):
    """What a visited node is."""

    THROUGH = 0  #: linear in the terms below it
    SCALE = 1  #: multiplied by a number
    DIVIDE = 2  #: divided by a number
    WEIGHTS = 3  #: depends on the parameters alone: the same on every rank
    MEAN = 4
    WEIGHTED = 5  #: a mean whose denominator the node keeps (class weights, ignore_index)
    SUM = 6
    OPAQUE = 7  #: cannot be looked into: weighted by samples


_TERMS = (Part.MEAN, Part.WEIGHTED, Part.SUM, Part.OPAQUE)


@dataclass(slots=True)
class Term:
    """One reduction over the batch."""

    node: Any
    part: Part
    amount: (
        float | None
    )  #: elements or weight of this rank's share; for a sum its divisor, None where there is none
    by_tensor: bool = False  #: the divisor is a tensor: taken as a sum over the share


@dataclass(frozen=True, slots=True)
class Reading:
    """The terms of one loss, and the visits by which they were found."""

    terms: tuple[Term, ...]
    visits: tuple[tuple[str, Part], ...]
    has_weights: bool  #: a part depends on the parameters alone
    digest: int  #: 31 bits of the structure
    judged: frozenset[tuple[int, ...]] = frozenset()  #: shapes taken to have the batch in them
    doubt: str = (
        ""  #: samples seem to be compared with each other, judging by shapes: sure only if all ranks say so
    )


class Law(IntEnum):
    """How the amounts of a term go together over the ranks."""

    SHARE = 0  #: factor N·d_r/Σd
    WHOLE = 1  #: a sum, divided by nothing or by the same number everywhere: factor N


@dataclass(slots=True)
class Profile:
    """What is known of the loss of one line, agreed between the ranks."""

    reading: Reading
    laws: tuple[Law, ...]
    is_settled: bool  #: learned on uneven shares, so that constants and sizes could be told apart
    needs_exchange: bool  #: factors depend on what other ranks see: exchange before each backward
    single: bool = field(default=False)  #: at most one term


def walk(
    root: Any,
    *,
    guide: Reading | None,
    batch_sizes: Sequence[int] = (),
    fixed: Collection[tuple[int, ...]] = (),
    where: str = "",
    is_weight: Callable[[Any], bool],
) -> Reading | None:
    """The terms of the scalar whose graph starts at ``root``.

    Args:
        guide: an earlier reading of the same line: it is followed, and None is
            returned where the graph has changed.
        batch_sizes: sizes of this rank's open shares, to recognise the batch's dimension.
        fixed: shapes that are the same on ranks with shares of different sizes: no batch in them.
        is_weight: whether a leaf is a parameter (not data).

    Raises:
        NotSplittable: without a guide, a node that sees the whole batch and is not linear.
    """
    if guide is not None:
        return _follow(root, guide)
    reader = _Reader(batch_sizes, fixed, where, is_weight)
    reader.read(root)
    return reader.reading()


def _follow(root: Any, guide: Reading) -> Reading | None:
    terms: list[Term] = []
    stack: list[tuple[Any, float | None, bool]] = [(root, None, False)]
    for name, part in guide.visits:
        if not stack:
            return None
        node, divisor, by_tensor = stack.pop()
        if node.name() != name:
            return None
        if part >= Part.MEAN:
            terms.append(_term(node, part, divisor, by_tensor))
        elif part is not Part.WEIGHTS:
            if part is not Part.THROUGH:
                divisor, by_tensor = _scaled(node, part, divisor, by_tensor)
            for child, _ in node.next_functions:
                if child is not None:
                    stack.append((child, divisor, by_tensor))
    if stack:
        return None
    return Reading(tuple(terms), guide.visits, guide.has_weights, guide.digest)


def _term(node: Any, part: Part, divisor: float | None, by_tensor: bool) -> Term:
    if part is Part.WEIGHTED:
        return Term(node, part, float(node._saved_total_weight))
    if part is Part.MEAN:
        return Term(node, part, float(_reduced(node)))
    if part is Part.SUM:
        return Term(node, part, divisor, by_tensor)
    return Term(node, part, 0.0)


def _scaled(node: Any, part: Part, divisor: float | None, by_tensor: bool) -> tuple[float | None, bool]:
    value = _factor(node)
    if value is None:
        return divisor, by_tensor
    number = float(value)
    so_far = 1.0 if divisor is None else divisor
    if part is Part.DIVIDE:
        is_tensor = (
            isinstance(value, torch.Tensor)
            and value.is_floating_point()
            and value.dtype == _result_type(node)
        )
        return so_far * number, by_tensor or is_tensor
    return so_far / number if number else divisor, by_tensor


def _factor(node: Any) -> torch.Tensor | float | None:
    """The number by which ``node`` multiplies or divides, where it kept it."""
    children = node.next_functions
    for side, name in ((1, "_saved_other"), (0, "_saved_self")):
        value = getattr(node, name, None)
        if isinstance(value, (int, float)):
            return value
        is_number = side >= len(children) or children[side][0] is None
        if isinstance(value, torch.Tensor) and is_number and value.numel() == 1 and not value.requires_grad:
            return value
    return None


def _result_type(node: Any) -> torch.dtype | None:
    kept = node._input_metadata
    return kept[0].dtype if kept else None


def _dims(node: Any) -> tuple[int, ...]:
    """Shape of what ``node`` reduced."""
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    if sizes is not None:
        return tuple(int(s) for s in sizes)
    children = node.next_functions
    if children and children[0][0] is not None:
        child, output = children[0]
        kept = child._input_metadata
        if output < len(kept):
            return tuple(int(s) for s in kept[output].shape)
    value = getattr(node, "_saved_self", None)
    return tuple(value.shape) if value is not None else ()


def _reduced(node: Any) -> int:
    """Number of elements that ``node`` averaged into one."""
    dims = _dims(node)
    kept = node._input_metadata
    out = math.prod(kept[0].shape) if kept else 1
    return math.prod(dims) // max(out, 1)


class _Reader:
    """Classifies the nodes of a graph that is seen for the first time."""

    def __init__(
        self,
        batch_sizes: Sequence[int],
        fixed: Collection[tuple[int, ...]],
        where: str,
        is_weight: Callable[[Any], bool],
    ) -> None:
        self._fixed = fixed
        self._judged: set[tuple[int, ...]] = set()
        self._batch_sizes = [size for size in batch_sizes if size > 0] or [1]
        self._where = where
        self._is_weight = is_weight
        self._terms: list[Term] = []
        self._visits: list[tuple[str, Part]] = []
        self._doubt = ""

    def read(self, root: Any) -> None:
        stack: list[tuple[Any, float | None, bool]] = [(root, None, False)]
        while stack:
            node, divisor, by_tensor = stack.pop()
            part = self._part(node)
            self._visits.append((node.name(), part))
            if len(self._visits) > MOST_VISITS or len(self._terms) > MOST_TERMS:
                self._refuse("it is put together from too many parts")
            if part in _TERMS:
                self._terms.append(_term(node, part, divisor, by_tensor))
            elif part is not Part.WEIGHTS:
                if part is not Part.THROUGH:
                    divisor, by_tensor = _scaled(node, part, divisor, by_tensor)
                stack.extend(
                    (child, divisor, by_tensor) for child, _ in node.next_functions if child is not None
                )

    def reading(self) -> Reading:
        visits = tuple(self._visits)
        digest = zlib.crc32(repr([(name, int(part)) for name, part in visits]).encode()) & 0x7FFFFFFF
        return Reading(
            terms=tuple(self._terms),
            visits=visits,
            has_weights=any(part is Part.WEIGHTS for _, part in visits),
            digest=digest,
            judged=frozenset(self._judged),
            doubt=self._doubt,
        )

    def _part(self, node: Any) -> Part:
        name: str = node.name()
        if self._only_weights(node):
            return Part.WEIGHTS
        kept = node._input_metadata
        out = tuple(kept[0].shape) if kept else ()
        reduction = getattr(node, "_saved_reduction", 0)
        if reduction == 1:
            self._check_pairs(node)
            return Part.WEIGHTED if name.startswith("NllLoss") else Part.MEAN
        if reduction == 2:
            self._check_pairs(node)
            return Part.SUM
        if name.startswith(("MeanBackward", "SumBackward", "NansumBackward")):
            dims = _dims(node)
            reduced = self._is_reduced_already(node)
            over_batch = name.endswith("1") and _is_over_first(node) and dims[0] in self._batch_sizes
            if self._has_batch(dims) and not reduced and (over_batch or not self._has_batch(out)):
                self._judged.add(dims)
                self._check_pairs(node)
                return Part.MEAN if name.startswith("Mean") else Part.SUM
            if reduced or not self._has_batch(out):
                return Part.THROUGH
        if name == "DotBackward0" and not self._has_batch(out):
            return Part.SUM
        if name in _SCALAR_LINEAR:
            return Part.THROUGH
        if name in ("MulBackward0", "MulBackward1", "DivBackward0", "DivBackward1"):
            return self._product(node, name)
        if name[-1].isdigit():
            self._refuse(f"it puts the batch through {_plain(name)} after averaging it")
        return Part.OPAQUE  # an autograd.Function or compiled code

    def _product(self, node: Any, name: str) -> Part:
        children = [child for child, _ in node.next_functions if child is not None]
        by_batch = [child for child in children if not self._only_weights(child)]
        if len(by_batch) > 1:
            self._refuse(
                f"it {'divides' if name.startswith('Div') else 'multiplies'} two quantities of the batch"
            )
        if len(by_batch) < len(children):
            # A number that is learned, for instance the weight of a task.
            if name.startswith("Div") and node.next_functions[0][0] is not by_batch[0]:
                self._refuse("it divides by a quantity of the batch")
            self._refuse("it scales a quantity of the batch by a learned number")
        if name.startswith("Div"):
            if node.next_functions[0][0] is None:
                self._refuse("it divides by a quantity of the batch")
            return Part.DIVIDE
        return Part.SCALE

    def _is_reduced_already(self, node: Any) -> bool:
        """What ``node`` takes in has no batch: it was averaged over it just before, or is put together from numbers."""
        child = node.next_functions[0][0]
        if child is None:
            return False
        name = child.name()
        if name in ("MeanBackward1", "SumBackward1"):
            return _is_over_first(child) and _dims(child)[0] in self._batch_sizes
        if name == "StackBackward0":
            kept = [
                one._input_metadata[number].shape for one, number in child.next_functions if one is not None
            ]
            return all(len(shape) == 0 for shape in kept)
        return False

    def _has_batch(self, dims: tuple[int, ...]) -> bool:
        if dims in self._fixed:
            return False
        return any(dim >= size and dim % size == 0 for dim in dims for size in self._batch_sizes)

    def _only_weights(self, node: Any) -> bool:
        """Everything below ``node`` comes from parameters, with no data multiplied in."""
        stack, seen = [node], 0
        while stack:
            one = stack.pop()
            seen += 1
            if seen > MOST_VISITS * 20:
                return False
            if hasattr(one, "variable"):
                if not self._is_weight(one.variable):
                    return False
                continue
            if not one.name().startswith(_REGULARIZER):
                return False
            for child, _ in one.next_functions:
                if child is not None:
                    stack.append(child)
            if any(child is None for child, _ in one.next_functions) and _data_beside(one):
                return False
        return True

    def _check_pairs(self, node: Any) -> None:
        """Doubt a reduction over a matrix of the batch with itself, and what mixes samples above it."""
        dims = _dims(node)
        for size in self._batch_sizes:
            if size > 1 and sum(dim == size for dim in dims) > 1 and _is_pairwise(node, size):
                self._doubt = f"it compares the samples of a batch with each other (a {size} × {size} matrix)"
        mixing = self._mixing(node)
        if mixing:
            self._doubt = f"it takes {mixing} over the samples of a batch before averaging"

    def _mixing(self, node: Any) -> str:
        stack = [child for child, _ in node.next_functions if child is not None]
        seen: set[Any] = set()
        while stack and len(seen) < MOST_VISITS * 20:
            one = stack.pop()
            if one in seen:
                continue
            seen.add(one)
            name = one.name()
            if name in _ACROSS:
                dims = _dims(one)
                if _is_over_first(one) and len(dims) > 1 and dims[0] in self._batch_sizes and dims[0] > 1:
                    return _plain(name)
            stack.extend(child for child, _ in one.next_functions if child is not None)
        return ""

    def _refuse(self, why: str) -> NoReturn:
        raise refusal(self._where, why)


def refusal(where: str, why: str) -> NotSplittable:
    """The error for a loss that cannot be put together from shares."""
    return NotSplittable(
        f"{where}: the loss is not a sum over the samples of a batch: {why}. Computed on shares of the batch it "
        "would train something else. Run this cell with  --strategy none  (every rank computes the whole batch) "
        "or  -n 1."
    )


def _is_over_first(node: Any) -> bool:
    """``node`` reduces the first dimension, and maybe others."""
    over = getattr(node, "_saved_dim", ())
    kept = over if isinstance(over, tuple) else (over,)
    rank = len(_dims(node))
    return rank > 0 and any(_signed(dim) in (0, -rank) for dim in kept)


def _signed(number: int) -> int:
    """A dimension that torch kept as an unsigned number."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _data_beside(node: Any) -> bool:
    """``node`` combines its graph with something that has none and is more than a number."""
    name = node.name()
    if name.startswith(("Addmm", "Addmv", "Addbmm", "Mm", "Mv")):
        return True  # a layer's input; a share may be one sample, so that shapes tell nothing
    if not name.startswith(("Mul", "Div", "Add", "Sub", "Rsub", "Pow")):
        return False
    if name.startswith(("Add", "Sub", "Rsub")):
        # One element is a number only where it has no dimension: (1, 1) is a share of one sample.
        return bool(node._input_metadata and len(node._input_metadata[0].shape) > 0)
    if name.startswith("Pow"):
        return False
    value = _factor(node)
    return value is None


def _is_pairwise(node: Any, size: int) -> bool:
    """Above ``node`` lies a product of two things of the batch, and not of the batch with weights."""
    stack, seen = [node], 0
    while stack and seen < 40:
        one = stack.pop()
        seen += 1
        name = one.name()
        if name.startswith(
            ("MmBackward", "BmmBackward", "CdistBackward", "MatmulBackward", "SubBackward", "EuclideanDist")
        ):
            sides = [child for child, _ in one.next_functions]
            kept = one._input_metadata
            square = bool(kept) and sum(int(s) == size for s in kept[0].shape) > 1
            if square and not any(_is_leaf_side(side) for side in sides):
                return True
        if name.startswith("AddmmBackward"):
            continue  # a Linear layer: the batch with weights
        stack.extend(child for child, _ in one.next_functions if child is not None)
    return False


def _is_leaf_side(node: Any) -> bool:
    """A parameter, at most transposed."""
    while node is not None and node.name() in ("TBackward0", "TransposeBackward0"):
        node = node.next_functions[0][0]
    return node is not None and hasattr(node, "variable")


def _plain(name: str) -> str:
    word = name.partition("Backward")[0]
    return {"Sqrt": "a square root", "Log": "a logarithm", "Pow": "a power", "Exp": "an exponential"}.get(
        word, word
    )


# -- factors: pure


def amounts(reading: Reading, *, share: int, is_empty: bool) -> list[float]:
    """This rank's amount of each term: 0 where its share counts nothing; a sum without divisor has 1."""
    out = []
    for term in reading.terms:
        if is_empty:
            out.append(0.0)
        elif term.part is Part.OPAQUE:
            out.append(float(share))
        elif term.part is Part.SUM:
            out.append(1.0 if term.amount is None else term.amount)
        else:
            assert term.amount is not None
            out.append(term.amount)
    return out


def settle(reading: Reading, rows: Sequence[Sequence[float]], sizes: Sequence[int]) -> Profile:
    """What the amounts of all ranks (``rows``, by rank) say about each term."""
    full = [r for r, size in enumerate(sizes) if size]
    uneven = len({sizes[r] for r in full}) > 1
    laws = []
    regular = True
    for number, term in enumerate(reading.terms):
        values = [rows[r][number] for r in full]
        per_sample = [rows[r][number] / sizes[r] for r in full]
        if term.part is Part.SUM:
            constant = _alike(values)
            whole = constant and (uneven or term.amount is None or not float(per_sample[0]).is_integer())
            laws.append(Law.WHOLE if whole else Law.SHARE)
            regular = regular and (whole or _alike(per_sample)) and not term.by_tensor
        else:
            laws.append(Law.SHARE)
            regular = regular and _alike(per_sample)
    single = len(reading.terms) <= 1
    constants = all(
        term.part is Part.SUM and law is Law.WHOLE for term, law in zip(reading.terms, laws, strict=True)
    )
    return Profile(
        reading=reading,
        laws=tuple(laws),
        is_settled=uneven or not reading.terms or all(t.part is not Part.SUM for t in reading.terms),
        needs_exchange=not (regular and (single or constants)),
        single=single,
    )


def factors(
    profile: Profile, rows: Sequence[Sequence[float]], sizes: Sequence[int], rank: int
) -> list[float]:
    """The factor of each term on ``rank`` that makes the average over the ranks the value of one process."""
    ranks = len(sizes)
    out = []
    for number, law in enumerate(profile.laws):
        if law is Law.WHOLE:
            out.append(float(ranks) if sizes[rank] else 0.0)
            continue
        total = sum(row[number] for row in rows)
        out.append(ranks * rows[rank][number] / total if total else 1.0)
    return out


def expected(profile: Profile, mine: Sequence[float], sizes: Sequence[int], rank: int) -> list[list[float]]:
    """What the other ranks' amounts are if they are in proportion to their shares."""
    own = sizes[rank] or 1
    rows = []
    for size in sizes:
        rows.append(
            [
                (value if size else 0.0) if law is Law.WHOLE else value * size / own
                for law, value in zip(profile.laws, mine, strict=True)
            ]
        )
    return rows


def in_proportion(values: Sequence[float], law: Law, sizes: Sequence[int]) -> bool:
    """Whether the amounts of one term are what ``expected`` said; the same answer on every rank."""
    full = [r for r, size in enumerate(sizes) if size]
    return _alike([values[r] if law is Law.WHOLE else values[r] / sizes[r] for r in full])


def _alike(values: Sequence[float]) -> bool:
    low, high = min(values), max(values)
    return high - low <= 1e-6 * max(abs(low), abs(high))
