"""What can change inside objects of the interpreter that show nothing of themselves but their pickle.

Iterators, counters, contexts of arithmetic, bit generators. How each is
described for pickling tells whether it moved on; those with ``__setstate__``
are moved on in the notebook too, those at their end are run to it, and the others have to be replaced.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from jupyter_train.transport.kinds import ChangedInside, Edit

#: Iterators of these modules: they walk along something that travels by itself.
_ITERATORS = frozenset({"builtins", "itertools"})

#: Others, by full name.
_OTHERS = frozenset(
    {
        "decimal.Context",
        "numpy.random.bit_generator.SeedSequence",
        "numpy.random._pcg64.PCG64",
        "numpy.random._pcg64.PCG64DXSM",
        "numpy.random._mt19937.MT19937",
        "numpy.random._philox.Philox",
        "numpy.random._sfc64.SFC64",
    }
)

#: The edit of what cannot be changed in place: whoever refers to it needs the rank's.
REPLACED: Edit = ("replaced",)

#: The edit of a plain iterator that came to its end: its description has let go of what it walked along.
EXHAUSTED: Edit = ("exhausted",)

_LIMIT = 100_000  #: items of one description that are looked at


def is_opaque(kind: type) -> bool:
    """Whether objects of type ``kind`` are seen by their description."""
    if f"{kind.__module__}.{kind.__qualname__}" in _OTHERS:
        return True
    return kind.__module__ in _ITERATORS and hasattr(kind, "__next__")


class Opaque:
    """A :class:`~jupyter_train.transport.kinds.Kind`: the description now and then."""

    def picture(self, value: Any) -> Any:
        return _described(value)

    def edits(self, value: Any, picture: Any, inside: ChangedInside) -> list[Edit]:
        now = _described(value)
        if now is None or _alike(now, picture):
            return []
        state = now[2] if len(now) > 2 else None
        if state is not None and hasattr(value, "__setstate__") and _alike(now[:2], picture[:2]):
            return [("setstate", state)]
        if _is_at_its_end(value, now):
            return [EXHAUSTED]
        if type(value).__module__ == "decimal":
            return [("setattr", [(name, getattr(value, name)) for name in _CONTEXT])]
        return [REPLACED]

    def parts(self, value: Any) -> Iterable[Any]:
        return ()


_CONTEXT = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _is_at_its_end(value: Any, now: tuple[Any, ...]) -> bool:
    """Whether a container's or a text's own iterator, which runs no code of the user, has nothing left."""
    own = type(value).__module__ == "builtins" and type(value).__qualname__.endswith("iterator")
    return (
        own and len(now) == 2 and now[0] is iter and type(now[1]) is tuple and now[1] in (([],), ((),), ("",))
    )


def _described(value: Any) -> Any:
    try:
        with warnings.catch_warnings():
            # Pickling itertools is deprecated since Python 3.12.
            warnings.simplefilter("ignore", DeprecationWarning)
            described = value.__reduce_ex__(4)
    except Exception:  # it cannot travel: capture has said so where it matters
        return None
    return described if isinstance(described, tuple) else None


def _alike(now: Any, then: Any) -> bool:
    """Whether two descriptions say the same: literals by value, tuples and fresh containers part by part."""
    todo = [(now, then)]
    looked = 0
    while todo:
        one, other = todo.pop()
        looked += 1
        if one is other:
            continue
        if looked > _LIMIT or type(one) is not type(other):
            return False
        if isinstance(one, tuple | list):
            if len(one) != len(other):
                return False
            todo += zip(one, other, strict=True)
        elif isinstance(one, dict):
            if list(one) != list(other):
                return False
            todo += zip(one.values(), other.values(), strict=True)
        elif hasattr(one, "tobytes"):
            if one.tobytes() != other.tobytes():
                return False
        elif isinstance(one, int | float | str | bytes | range):
            if one != other:
                return False
        else:
            return False
    return True
