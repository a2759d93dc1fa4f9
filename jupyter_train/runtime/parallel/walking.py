"""From a loss down its graph to where the batch was reduced.

The first time every node is classified; later only the recorded visits are
followed and names compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from jupyter_train.runtime.parallel.loss import Part, Path, Reading, Term, term
from jupyter_train.runtime.parallel.reader import Reader


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
    reader = Reader(batch_sizes, fixed, where, is_weight)
    reader.read(root)
    return reader.reading()


def _follow(root: Any, guide: Reading) -> Reading | None:
    terms: list[Term] = []
    stack: list[tuple[Any, Path]] = [(root, Path())]
    for name, part in guide.visits:
        if not stack:
            return None
        node, path = stack.pop()
        if node.name() != name:
            return None
        if part >= Part.MEAN:
            terms.append(term(node, part, path))
        elif part is not Part.WEIGHTS:
            path = path.through(node, part)
            for child, _ in node.next_functions:
                if child is not None:
                    stack.append((child, path))
    if stack:
        return None
    return Reading(tuple(terms), guide.visits, guide.has_weights, guide.digest)
