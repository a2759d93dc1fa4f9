"""What counts the items of an iterator for a loop, ``enumerate``, ``zip`` and ``islice``, brought to where it stood.

They are asked for their next item at that moment, and have asked the iterator
in turn, so that nothing of theirs can be called. Their counts lie where CPython
has them; each is compared with what is known of it before it is changed.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from itertools import islice
from types import FrameType, GeneratorType
from typing import Any

from jupyter_train.errors import CellError

DEEPEST = 6
_WORD = ctypes.sizeof(ctypes.c_void_p)
_HEAD = object.__basicsize__
_END = object()


def advance_counters(iterator: Any, count: int) -> None:
    """Let whatever reads from ``iterator`` for a loop count ``count`` items more.

    Raises:
        CellError: this Python keeps its counts elsewhere.
    """
    if not count:
        return
    known = {id(iterator): iterator}
    for generator in _running():  # tqdm, and generators of the cell that hand on what they read
        known[id(generator)] = generator
    for _ in range(DEEPEST):
        found = [
            (one, inner)
            for one in gc.get_objects()
            if type(one) in _ADVANCE and id(one) not in known
            for inner in gc.get_referents(*_held(one))
            if id(inner) in known
        ]
        if not found:
            return
        for one, inner in found:
            if id(one) not in known:
                known[id(one)] = one
                _ADVANCE[type(one)](one, inner, count, known)


def _running() -> list[GeneratorType[Any, Any, Any]]:
    """The generators that are being asked for an item, from here outwards."""
    frames: set[int] = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.add(id(frame))
        frame = frame.f_back
    return [
        one
        for one in gc.get_objects()
        if type(one) is GeneratorType and one.gi_running and id(one.gi_frame) in frames
    ]


def _held(one: Any) -> list[Any]:
    """What to look into for the iterators that ``one`` reads from."""
    return [one] if type(one) is not zip else [one.__reduce__()[1]]


def _word(owner: Any, number: int) -> ctypes.c_ssize_t:
    """The ``number``-th word behind the head of an object."""
    return ctypes.c_ssize_t.from_address(id(owner) + _HEAD + number * _WORD)


def _enumerate(counter: Any, inner: Any, count: int, known: dict[int, Any]) -> None:
    del inner, known
    now = counter.__reduce__()[1][1]
    index = _word(counter, 0)
    if index.value != now:
        raise _unknown("enumerate")
    index.value = now + count


def _islice(counter: Any, inner: Any, count: int, known: dict[int, Any]) -> None:
    del known
    source, following, stop, step, taken = (_word(counter, number) for number in range(5))
    if (
        source.value != id(inner)
        or not 0 <= taken.value <= following.value
        or step.value < 1
        or stop.value < -1
    ):
        raise _unknown("islice")
    first = following.value
    taken.value += count
    behind = max(0, taken.value - first)
    following.value = first + -(-behind // step.value) * step.value


def _zip(zipped: Any, inner: Any, count: int, known: dict[int, Any]) -> None:
    """The other iterators are brought on; those that come first have given an item for this turn already."""
    del inner
    iterators = zipped.__reduce__()[1]
    at = next(number for number, one in enumerate(iterators) if id(one) in known)
    for number, one in enumerate(iterators):
        if id(one) in known or hasattr(one, "standing"):
            continue
        item = _END
        for _ in range(count):
            if (item := next(one, _END)) is _END:
                break
        if number < at and item is not _END:
            _replace(zipped, number, item)


def _replace(zipped: Any, number: int, item: Any) -> None:
    """In the tuple that ``zipped`` is about to hand out."""
    result = next(
        (one for one in gc.get_referents(zipped) if type(one) is tuple and one is not _of(zipped)), None
    )
    if result is None or len(result) <= number or _word(zipped, 2).value != id(result):
        raise _unknown("zip")
    place = ctypes.c_ssize_t.from_address(id(result) + tuple.__basicsize__ + number * _WORD)
    if place.value != id(result[number]):
        raise _unknown("zip")
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))
    before = result[number]
    place.value = id(item)
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(before))


def _of(zipped: Any) -> Any:
    """The tuple of its iterators."""
    return next(
        (one for one in gc.get_referents(zipped) if type(one) is tuple and id(one) == _word(zipped, 1).value),
        None,
    )


def _unknown(what: str) -> CellError:
    return CellError(
        f"Python {sys.version.split()[0]} keeps the count of {what}() elsewhere: a loop over it cannot be gone on with in its "
        "middle. Count in the loop's body instead"
    )


_ADVANCE: dict[type, Callable[[Any, Any, int, dict[int, Any]], None]] = {
    enumerate: _enumerate,
    zip: _zip,
    islice: _islice,
}
