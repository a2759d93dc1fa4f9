"""Pictures of everything that was loaded, so that after the cell only what changed is sent.

Objects that the kernel has too are pictured one by one, by number: no walk.
What an object made for itself while it was loaded has no number; it is
pictured with its owner, and when it changed it goes back as part of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from jupyter_train.transport.elements import Arrays, Elements, Frames, Gradients, IndexNames, Tensors
from jupyter_train.transport.kinds import ATTRIBUTES, Edit, Kind, kinds_of
from jupyter_train.transport.memory import Regions
from jupyter_train.transport.opaque import Opaque, is_opaque

#: Objects without a number that are pictured at most: a library's registry behind an attribute must not cost seconds.
_INNER_LIMIT = 20_000

#: What objects of these types hold came from the stream as it is, and has a number.
_FROM_STREAM = frozenset({list, dict, set})

_Entry = tuple[Any, tuple[Kind, ...], tuple[Any, ...]]


class Snapshots:
    """Pictures of ``objects``, taken when made, in the rank's main thread before the cell runs."""

    def __init__(self, objects: Sequence[Any], regions: Regions) -> None:
        self._regions = regions
        self._odd = regions.odd()
        spans = regions.spans()
        self._arrays = Arrays(spans)
        self._elements: list[Elements] = [self._arrays]
        self._special: list[tuple[type, tuple[Kind, ...]]] = [(np.ndarray, (self._arrays, ATTRIBUTES))]
        torch = sys.modules.get("torch")
        if torch is not None:
            tensors = Tensors(spans)
            self._elements.append(tensors)
            self._special.append((torch.nn.Parameter, (tensors, ATTRIBUTES)))
            self._special.append((torch.Tensor, (tensors, Gradients(), ATTRIBUTES)))
        pandas = sys.modules.get("pandas")
        if pandas is not None:
            self._special.append((pandas.core.generic.NDFrame, (Frames(self._arrays),)))
            self._special.append((pandas.Index, (IndexNames(),)))
        self._opaque = Opaque()
        self._kinds: dict[type, tuple[Kind, ...]] = {}
        self._numbered = {id(value) for value in objects if value is not None}
        self._pictures: dict[int, _Entry] = {}
        self._inner: dict[int, _Entry] = {}
        for number, value in enumerate(objects):
            if value is not None:
                self._take(number, value)

    def _take(self, number: int, value: Any) -> None:
        kinds = self._kinds_of(type(value))
        if kinds:
            self._pictures[number] = (value, kinds, tuple(kind.picture(value) for kind in kinds))
            if type(value) not in _FROM_STREAM:
                for kind in kinds:
                    for part in kind.parts(value):
                        self._take_inner(part)

    def _take_inner(self, value: Any) -> None:
        todo = [value]
        while todo and len(self._inner) < _INNER_LIMIT:
            part = todo.pop()
            if id(part) in self._numbered or id(part) in self._inner:
                continue
            if isinstance(part, tuple):
                todo += part
                continue
            kinds = self._kinds_of(type(part))
            if not kinds:
                continue
            self._inner[id(part)] = (part, kinds, tuple(kind.picture(part) for kind in kinds))
            for kind in kinds:
                todo += kind.parts(part)

    def _kinds_of(self, kind: type) -> tuple[Kind, ...]:
        found = self._kinds.get(kind)
        if found is None:
            found = (self._opaque,) if is_opaque(kind) else kinds_of(kind, self._special)
            self._kinds[kind] = found
        return found

    def lies_as_there(self, address: int) -> bool:
        """Whether ``address`` is in memory that came from the notebook and has the same layout there."""
        region = self._arrays.region_at(address)
        return region >= 0 and region not in self._odd

    def changes(self) -> Iterator[tuple[int, Any, list[Edit]]]:
        """``(number, object, edits)`` of each object that is no longer as pictured."""
        changed = self._regions.changed()
        for elements in self._elements:
            elements.changed = changed
        visited: dict[int, bool] = {}
        for number, entry in self._pictures.items():
            edits = self._edits(entry, visited)
            if edits:
                yield number, entry[0], edits

    def _edits(self, entry: _Entry, visited: dict[int, bool]) -> list[Edit]:
        value, kinds, pictures = entry
        has_parts = self._inner and (id(value) not in self._numbered or type(value) not in _FROM_STREAM)
        inside = partial(self._changed_inside, visited=visited) if has_parts else None
        return [
            edit
            for kind, picture in zip(kinds, pictures, strict=True)
            for edit in kind.edits(value, picture, inside)
        ]

    def _changed_inside(self, value: Any, *, visited: dict[int, bool]) -> bool:
        if isinstance(value, tuple) and id(value) not in self._numbered:
            return any(self._changed_inside(part, visited=visited) for part in value)
        entry = self._inner.get(id(value))
        if entry is None or entry[0] is not value:
            return False
        if id(value) not in visited:
            visited[id(value)] = False  # in a cycle the others decide
            visited[id(value)] = bool(self._edits(entry, visited))
        return visited[id(value)]
