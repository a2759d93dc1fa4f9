"""Reads a loss that is seen for the first time: what is each node of its graph, from the top to the batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NoReturn

from jupyter_train.runtime.parallel.graph import dims as dims_of
from jupyter_train.runtime.parallel.graph import factor, is_over_first, plain, shape
from jupyter_train.runtime.parallel.loss import Part, Path, Reading, Term, refusal, term

MOST_VISITS = 400
MOST_TERMS = 16
_REDUCES, _BELOW = -1, -2  #: beginnings of what is judged besides shapes
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


class Reader:
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
        self._doubt: tuple[str, str] | None = None
        self._pairs: frozenset[tuple[int, int]] = frozenset()

    def read(self, root: Any) -> None:
        """Classify what can be reached from ``root``.

        Raises:
            NotSplittable: by what it is.
        """
        stack: list[tuple[Any, Path]] = [(root, Path())]
        self._pairs = self._paired(root)
        while stack:
            node, path = stack.pop()
            part = self._part(node)
            self._visits.append((node.name(), part))
            if len(self._visits) > MOST_VISITS or len(self._terms) > MOST_TERMS:
                self._refuse("is put together from too many parts")
            if part >= Part.MEAN:
                self._terms.append(term(node, part, path))
            elif part is not Part.WEIGHTS:
                path = path.through(node, part)
                stack.extend((child, path) for child, _ in node.next_functions if child is not None)

    def reading(self) -> Reading:
        """What was read."""
        visits = tuple(self._visits)
        digest = zlib.crc32(repr([(name, int(part)) for name, part in visits]).encode()) & 0x7FFFFFFF
        return Reading(
            terms=tuple(self._terms),
            visits=visits,
            has_weights=any(part is Part.WEIGHTS for _, part in visits),
            digest=digest,
            judged=frozenset(self._judged),
            doubt=self._doubt,
            pairs=self._pairs,
        )

    def _part(self, node: Any) -> Part:
        name: str = node.name()
        if self._only_weights(node):
            return Part.WEIGHTS
        out = shape(node)
        reduction = getattr(node, "_saved_reduction", 0)
        if reduction in (1, 2) and self._is_of_no_batch(node):
            return Part.WEIGHTS
        if reduction == 1:
            self._check_pairs(node)
            return Part.WEIGHTED if name.startswith("NllLoss") else Part.MEAN
        if reduction == 2:
            self._check_pairs(node)
            return Part.SUM
        if name.startswith(("MeanBackward", "SumBackward", "NansumBackward")):
            dims = dims_of(node)
            reduced = self._is_reduced_already(node)
            over_batch = name.endswith("1") and is_over_first(node) and dims[0] in self._batch_sizes
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
            self._refuse(
                f"puts the batch through {plain(name)} after averaging it",
                "It is split where backward() is called on the average itself, or each sample is put through "
                "that before averaging",
            )
        return Part.OPAQUE  # an autograd.Function or compiled code

    def _product(self, node: Any, name: str) -> Part:
        children = [child for child, _ in node.next_functions if child is not None]
        by_batch = [child for child in children if not self._only_weights(child)]
        if len(by_batch) > 1:
            self._refuse(
                f"{'divides' if name.startswith('Div') else 'multiplies'} two quantities of the batch",
                f"It is split where each sample has its own {'quotient' if name.startswith('Div') else 'product'} "
                "and those are averaged",
            )
        if len(by_batch) < len(children):
            # A number that is learned, for instance the weight of a task.
            if name.startswith("Div") and node.next_functions[0][0] is not by_batch[0]:
                self._refuse("divides by a quantity of the batch")
            self._refuse("scales a quantity of the batch by a learned number")
        if name.startswith("Div"):
            if node.next_functions[0][0] is None:
                self._refuse("divides by a quantity of the batch")
            return Part.DIVIDE
        return Part.SCALE

    def _is_reduced_already(self, node: Any) -> bool:
        """What ``node`` takes in has no batch: it was averaged over it just before, or is put together from numbers."""
        child = node.next_functions[0][0]
        if child is None:
            return False
        name = child.name()
        if name in ("MeanBackward1", "SumBackward1"):
            return is_over_first(child) and dims_of(child)[0] in self._batch_sizes
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

    def _is_of_no_batch(self, node: Any) -> bool:
        """What ``node``, a loss of torch, averages is the same on every rank: a few points of one's own, beside the batch.

        Raises:
            NotSplittable: it has no batch in it any more, and what it was made of has: a covariance for instance.
        """
        dims = dims_of(node)
        at = len(
            self._visits
        )  # of two loaders' batches one rank's share may be as large as the other one's of the other
        reduces, below = (_REDUCES, at, *dims), (_BELOW, at, _shapes_below(node))
        if not dims or self._batch_sizes == [1]:
            return False  # a share of one sample shows nothing
        self._judged.update((reduces, below))
        if reduces not in self._fixed:
            return False
        if below not in self._fixed:
            self._refuse("averages what was put together from the samples of a batch before")
        return True

    def _paired(self, root: Any) -> frozenset[tuple[int, int]]:
        """The nodes of the graph, by number, that have two dimensions of k times this rank's samples, and that k.

        One that is found by ranks with shares of different sizes has all pairs
        of a batch in it: dimensions that do not depend on the batch cannot be
        the same multiple of several sizes.
        """
        found: set[tuple[int, int]] = set()
        for number, node in enumerate(_below(root)):
            dims = shape(node)
            if node.name().startswith("Pdist"):
                found.add((number, 0))
            for size in self._batch_sizes:
                if size > 1 and len(dims) > 1:
                    found.update((number, k) for k in range(1, 5) if dims.count(k * size) > 1)
        return frozenset(found)

    def _check_pairs(self, node: Any) -> None:
        """Doubt a reduction over a matrix of the batch with itself, and what mixes samples above it."""
        dims = dims_of(node)
        for size in self._batch_sizes:
            if size > 1 and sum(dim == size for dim in dims) > 1 and _is_pairwise(node, size):
                self._doubt = (
                    "compares the samples of a batch with each other (a matrix of all pairs)",
                    "What is compared has to be on one rank: -n 1 takes as long",
                )
        mixing = self._mixing(node)
        if mixing:
            self._doubt = (
                f"takes {mixing} over the samples of a batch before averaging",
                "It is split with nn.BatchNorm, or with statistics of each sample",
            )

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
                dims = dims_of(one)
                if is_over_first(one) and len(dims) > 1 and dims[0] in self._batch_sizes and dims[0] > 1:
                    return plain(name)
            stack.extend(child for child, _ in one.next_functions if child is not None)
        return ""

    def _refuse(self, why: str, fix: str = "") -> NoReturn:
        raise refusal(self._where, why, fix)


def _data_beside(node: Any) -> bool:
    """``node`` combines its graph with something that has none and is more than a number."""
    name = node.name()
    if name.startswith(("Addmm", "Addmv", "Addbmm", "Mm", "Mv")):
        return True  # a layer's input; a share may be one sample, so that shapes tell nothing
    if not name.startswith(("Mul", "Div", "Add", "Sub", "Rsub", "Pow")):
        return False
    if name.startswith(("Add", "Sub", "Rsub")):
        # One element is a number only where it has no dimension: (1, 1) is a share of one sample.
        return len(shape(node)) > 0
    if name.startswith("Pow"):
        return False
    value = factor(node)
    return value is None


def _below(root: Any) -> Iterator[Any]:
    """The nodes of the graph under ``root``, as far as anybody looks."""
    stack, seen = [root], set[Any]()
    while stack and len(seen) < MOST_VISITS * 20:
        one = stack.pop()
        if one in seen:
            continue
        seen.add(one)
        yield one
        stack.extend(child for child, _ in one.next_functions if child is not None)


def _shapes_below(node: Any) -> int:
    """A digest of the shapes of all that ``node`` comes from."""
    return zlib.crc32(repr([shape(one) for one in _below(node)]).encode())


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
            square = sum(dim == size for dim in shape(one)) > 1
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
