"""What a loss is made of: from its graph to the factor that makes the average over ranks the value of one process.

A loss that is a sum of terms, each a mean or a sum over the samples of the
batch, can be computed on shares of the batch and put together exactly: a mean
over ``d_r`` elements on rank ``r`` counts ``N·d_r/Σd`` in the average over the
``N`` ranks, a sum counts ``N``. Anything else that looks at the whole batch
(the root of a mean, a ratio of sums, a matrix of all pairs) cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from jupyter_train.runtime.parallel.errors import NotSplittable, not_splittable
from jupyter_train.runtime.parallel.graph import factor, is_tensor_like, reduced


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


@dataclass(slots=True)
class Term:
    """One reduction over the batch.

    ``amount`` is the elements or the weight of this rank's share; for a sum its
    divisor, None where there is none.
    """

    node: Any
    part: Part
    amount: float | None
    scale: float = 1.0  #: by what it is multiplied: has to be the same on all ranks
    by_tensor: bool = False  #: a tensor divides or multiplies it, which may differ between ranks at any step


@dataclass(frozen=True, slots=True)
class Reading:
    """The terms of one loss, and the visits by which they were found.

    ``doubt`` says why samples seem to be compared with each other (and what
    would help), judging by shapes: it is sure only if all ranks say so.
    """

    terms: tuple[Term, ...]
    visits: tuple[tuple[str, Part], ...]
    has_weights: bool  #: a part depends on the parameters alone
    digest: int  #: 31 bits of the structure
    judged: frozenset[tuple[int, ...]] = frozenset()  #: shapes taken to have the batch in them
    doubt: tuple[str, str] | None = None
    pairs: frozenset[tuple[int, int]] = frozenset()  #: nodes with all pairs of a batch, perhaps


class Path(NamedTuple):
    """The numbers between the loss and a node."""

    divisor: float | None = None  #: of a sum: what divides it, and what a number of Python multiplies it by
    product: float = 1.0  #: of all
    tensors: float = 1.0  #: of the tensors that multiply
    by_tensor: bool = False

    def through(self, node: Any, part: Part) -> Path:
        """The path one node further down."""
        value = factor(node) if part in (Part.SCALE, Part.DIVIDE) else None
        if value is None:
            return self
        number, is_tensor = float(value), is_tensor_like(value, node)
        by_tensor = self.by_tensor or is_tensor
        before = 1.0 if self.divisor is None else self.divisor
        if part is Part.DIVIDE:
            product = self.product / number if number else float("inf")
            return Path(before * number, product, self.tensors, by_tensor)
        if is_tensor:
            return Path(self.divisor, self.product * number, self.tensors * number, by_tensor)
        return Path(
            before / number if number else self.divisor, self.product * number, self.tensors, by_tensor
        )


def term(node: Any, part: Part, path: Path) -> Term:
    """The reduction that ``node`` is."""
    if part is Part.SUM:
        return Term(node, part, path.divisor, path.tensors, path.by_tensor)
    amount = 0.0
    if part is Part.WEIGHTED:
        amount = float(node._saved_total_weight)
    elif part is Part.MEAN:
        amount = float(reduced(node))
    return Term(node, part, amount, path.product, path.by_tensor)


def refusal(where: str, why: str, fix: str = "") -> NotSplittable:
    """The error for a loss that cannot be put together from shares: ``why`` says what it does."""
    return not_splittable(where, f"the loss {why}", fix)
