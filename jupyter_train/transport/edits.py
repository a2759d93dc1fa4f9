"""Carries out on the notebook's own object what the cell did to the rank's."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jupyter_train.transport.kinds import Edit


class CannotEdit(Exception):
    """The notebook's object cannot be changed in place; the message says why."""


def apply_edits(own: Any, edits: Iterable[Edit]) -> None:
    """Change ``own`` in place.

    Raises:
        CannotEdit: an array changed its shape or is read-only, an iterator's container changed meanwhile.
    """
    for verb, *arguments in edits:
        _VERBS[verb](own, *arguments)


def _items(own: dict[Any, Any], given: list[tuple[Any, Any]], gone: list[Any]) -> None:
    for key in gone:
        own.pop(key, None)
    for key, value in given:
        own[key] = value


def _replace_items(own: dict[Any, Any], items: list[tuple[Any, Any]]) -> None:
    own.clear()
    for key, value in items:
        own[key] = value


def _attributes(own: Any, given: list[tuple[str, Any]], gone: list[str]) -> None:
    # Past __setattr__, which frozen dataclasses and DataLoaders guard.
    for name in gone:
        own.__dict__.pop(name, None)
    own.__dict__.update(given)


def _slots(own: Any, given: list[tuple[str, Any]], gone: list[str]) -> None:
    for name in gone:
        if hasattr(own, name):
            object.__delattr__(own, name)
    for name, value in given:
        object.__setattr__(own, name, value)


def _elements(own: Any, elements: list[Any]) -> None:
    own.clear()
    own.extend(elements)


def _members(own: set[Any], added: list[Any], gone: list[Any]) -> None:
    own.difference_update(gone)
    own.update(added)


def _content(own: Any, content: Any) -> None:
    own[:] = content


def _cell(own: Any, contents: Any) -> None:
    own.cell_contents = contents


def _state(own: Any, state: Any) -> None:
    if isinstance(own, random.Random):
        own.setstate(state)
    elif isinstance(own, np.random.Generator):
        own.bit_generator.state = state
    elif isinstance(own, io.BytesIO | io.StringIO):
        own.__setstate__(state)  # type: ignore[union-attr]  # typeshed leaves it out
    elif hasattr(own, "set_state"):  # numpy's RandomState and torch's Generator name it alike
        own.set_state(state)
    else:  # an image
        own.__setstate__(state)


def _set_state(own: Any, state: Any) -> None:
    own.__setstate__(state)


def _exhausted(own: Iterator[Any]) -> None:
    try:
        for _ in own:
            pass
    except RuntimeError:  # what it walks along has another size by now
        raise CannotEdit(f"a {type(own).__name__} came to its end over what has another size here") from None


def _setattr(own: Any, given: list[tuple[str, Any]]) -> None:
    for name, value in given:
        setattr(own, name, value)


def _class(own: type, given: list[tuple[str, Any]], gone: list[str]) -> None:
    # Past the metaclass: an Enum's refuses, and the rank's has had its say.
    for name in gone:
        if name in vars(own):
            type.__delattr__(own, name)
    for name, value in given:
        type.__setattr__(own, name, value)


def _array(own: np.ndarray[Any, Any], new: np.ndarray[Any, Any]) -> None:
    if own.size == new.size and own.dtype == new.dtype and own.shape != new.shape:
        _reshape(own, new.shape)
    if own.shape != new.shape or own.dtype != new.dtype:
        raise CannotEdit(f"an array of shape {own.shape} became one of shape {new.shape} in place")
    was_writeable = own.flags.writeable
    try:
        own.flags.writeable = True
    except ValueError:
        raise CannotEdit("an array is read-only here") from None
    try:
        own[...] = new
    finally:
        own.flags.writeable = was_writeable


def _reshape(own: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of numpy advise against it
        try:
            own.shape = shape
        except (AttributeError, ValueError):  # its strides do not allow it
            raise CannotEdit(f"an array of shape {own.shape} became one of shape {shape} in place") from None


def _objects(own: np.ndarray[Any, Any], elements: list[Any]) -> None:
    if own.size != len(elements):
        raise CannotEdit("an array of objects changed its shape in place")
    for index, element in enumerate(elements):
        own.flat[index] = element


def _tensor(own: Any, new: Any, requires_grad: bool) -> None:
    if own.shape == new.shape and own.dtype == new.dtype and own.layout == new.layout:
        own.data.copy_(new)
    else:
        own.data = new.to(own.device, copy=True)
    if own.is_leaf:
        _requires_grad(own, requires_grad)


def _requires_grad(own: Any, requires_grad: bool) -> None:
    if own.requires_grad != requires_grad:
        own.requires_grad_(requires_grad)


def _grad(own: Any, grad: Any) -> None:
    own.grad = None if grad is None else grad.to(own.device)


def _frame(own: Any, new: Any) -> None:
    own._update_inplace(new)
    own.attrs.clear()
    own.attrs.update(new.attrs)
    if own.flags.allows_duplicate_labels != new.flags.allows_duplicate_labels:
        own.flags.allows_duplicate_labels = new.flags.allows_duplicate_labels
    for name in new._metadata:
        object.__setattr__(own, name, getattr(new, name, None))


def _extend(own: Any, length: int, tail: list[Any]) -> None:
    while len(own) > length:  # what the notebook or another run added meanwhile: the run's value wins
        own.pop()
    own.extend(tail)


_VERBS: dict[str, Callable[..., None]] = {
    "items": _items,
    "replace_items": _replace_items,
    "attributes": _attributes,
    "slots": _slots,
    "elements": _elements,
    "extend": _extend,
    "members": _members,
    "content": _content,
    "cell": _cell,
    "state": _state,
    "array": _array,
    "objects": _objects,
    "tensor": _tensor,
    "requires_grad": _requires_grad,
    "grad": _grad,
    "frame": _frame,
    "class": _class,
    "setattr": _setattr,
    "setstate": _set_state,
    "exhausted": _exhausted,
}
