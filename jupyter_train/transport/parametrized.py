"""Modules with parametrizations (``weight_norm``, ``spectral_norm``): torch refuses to pickle them.

Their class is made on the spot, for one module, with a property for each
parametrized tensor. It is made anew on the other side.
"""

from __future__ import annotations

from typing import Any


def is_parametrized(kind: type) -> bool:
    """Whether ``torch.nn.utils.parametrize`` made ``kind``."""
    return kind.__module__ == "torch.nn.utils.parametrize" and kind.__name__.startswith("Parametrized")


def reduce_parametrized(module: Any) -> Any:
    """As a module of the class that it had before."""
    return make_module, (type(module).__bases__[0],), module.__dict__, None, None, parametrize


def make_module(cls: type) -> Any:
    """The bare module."""
    return cls.__new__(cls)  # type: ignore[call-overload]  # mypy takes cls for a metaclass


def parametrize(module: Any, attributes: dict[str, Any]) -> None:
    """Give it its attributes, and a class of its own with the properties."""
    from torch.nn.utils import parametrize as torch_parametrize

    module.__dict__.update(attributes)
    torch_parametrize._inject_new_class(module)
    for name in module.parametrizations:
        torch_parametrize._inject_property(module, name)
