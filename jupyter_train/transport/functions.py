"""Functions and classes of the notebook: by value, in one shared namespace.

cloudpickle gives each function a private copy of the globals it reads. A cell
and the functions it calls share one namespace, so here functions are rebuilt
over the namespace of the process that loads them, and closures share cells.

Classes are cloudpickle's business, with two differences: a class that this
process knows already is left alone (cloudpickle would replace its methods by
copies with other globals), and ``__slots__`` are kept.
"""

from __future__ import annotations

import functools
import inspect
from types import CellType, CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from jupyter_train.transport.bytecode import IDENTIFIER

if TYPE_CHECKING:
    from jupyter_train.transport.pickling import Receiver

LruCache: type = type(functools.lru_cache(lambda: None))

_FUNCTION_FIELDS = (
    "__qualname__",
    "__module__",
    "__doc__",
    "__defaults__",
    "__kwdefaults__",
    "__annotations__",
)


def function_state(function: FunctionType) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and fields that :func:`fill_function` sets."""
    fields = {name: getattr(function, name) for name in _FUNCTION_FIELDS}
    type_parameters = getattr(function, "__type_params__", ())  # Python 3.12
    if type_parameters:
        fields["__type_params__"] = type_parameters
    return function.__dict__, fields


def names_in_annotations(annotated: FunctionType | type) -> set[str]:
    """Names in annotations that are strings, which ``typing.get_type_hints`` looks up."""
    try:
        annotations = inspect.get_annotations(annotated)
    except Exception:  # from Python 3.14 on they are worked out here, and may be of any code
        return set()
    texts = [text for text in annotations.values() if isinstance(text, str)]
    return {name for text in texts for name in IDENTIFIER.findall(text)}


def make_function(
    receiver: Receiver, code: CodeType, name: str, closure: tuple[CellType, ...] | None
) -> FunctionType:
    """The bare function, over the namespace of this process."""
    return FunctionType(code, receiver.namespace, name, None, closure)


def fill_function(function: FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """What may refer to the function itself and so comes after it."""
    attributes, fields = state
    function.__dict__.update(attributes)
    for name, value in fields.items():
        setattr(function, name, value)


def make_cell() -> CellType:
    """An empty cell of a closure."""
    return CellType()


def fill_cell(cell: CellType, state: tuple[Any]) -> None:
    """Set the contents, which may refer to the cell."""
    cell.cell_contents = state[0]


def cell_state(cell: CellType) -> tuple[Any] | None:
    """What :func:`fill_cell` takes, or None for an empty cell."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return None


def make_lru_cache(function: Any, parameters: dict[str, Any]) -> Any:
    """``functools.lru_cache`` again, empty: its own pickle is a bare name."""
    return functools.lru_cache(**parameters)(function)


def is_single_dispatch(function: FunctionType) -> bool:
    """Whether it is what ``functools.singledispatch`` makes: a closure over weak references."""
    return function.__globals__ is vars(functools) and hasattr(function, "registry")


def reduce_single_dispatch(function: Any) -> Any:
    """As a table of types and implementations."""
    return make_single_dispatch, (function.registry[object], list(function.registry.items()))


def make_single_dispatch(default: Any, registry: list[tuple[type, Any]]) -> Any:
    """The same table again."""
    function = functools.singledispatch(default)
    for cls, implementation in registry:
        function.register(cls, implementation)
    return function


def reduce_cached_property(cached: Any) -> Any:
    """Without the lock that Python 3.11 keeps in it."""
    return make_cached_property, (cached.func, cached.attrname)


def make_cached_property(function: Any, name: str | None) -> Any:
    """The property of a class that is being made, which does not call ``__set_name__``."""
    cached = functools.cached_property(function)
    cached.attrname = name
    return cached


def is_notebook_class(cls: type) -> bool:
    """Whether ``cls`` travels by value."""
    return not cloudpickle._should_pickle_by_reference(cls)


def reduce_class(cls: type, sender: Any) -> Any:
    """As cloudpickle, over :func:`make_class` and :func:`fill_class`."""
    reduced = cloudpickle._class_reduce(cls)
    if reduced is NotImplemented or not isinstance(reduced, tuple) or len(reduced) < 6:
        return reduced
    maker, arguments, state, _, _, _ = reduced
    slots = vars(cls).get("__slots__")
    if maker is cloudpickle._make_skeleton_class and slots:  # empty ones forbid nothing that matters here
        # Position 3 holds what the class body must have from the start.
        arguments = (*arguments[:3], {**arguments[3], "__slots__": slots}, *arguments[4:])
    return make_class, (sender, maker, arguments), (sender, state), None, None, fill_class


def make_class(receiver: Receiver, maker: Any, arguments: tuple[Any, ...]) -> type:
    """The class of this process with the same identity, else an empty new one."""
    tracker = arguments[-2]  # the last but one argument of both of cloudpickle's makers
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
    if known is not None:
        receiver.known_classes.add(known)
        assert isinstance(known, type)
        return known
    made: type = maker(*arguments)
    return made


def fill_class(cls: type, state: tuple[Receiver, Any]) -> None:
    """Methods and attributes of a class that :func:`make_class` made new."""
    receiver, inner = state
    if cls not in receiver.known_classes:
        cloudpickle._class_setstate(cls, inner)
