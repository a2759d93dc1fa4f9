"""Attributes that belong to a process, by class: they do not travel, and their change is none.

torch's optimizers wrap ``step`` on the instance and hang hooks on themselves;
DataLoaders with persistent workers hold a running iterator. What else such an
object has travels, also what torch's own pickle forgets (``LBFGS._params``).
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Callable
from typing import Any

IsTransient = Callable[[str], bool]


def transient_attributes(kind: type) -> IsTransient | None:
    """Which attributes of objects of type ``kind`` stay behind; None: all travel, or the class decides itself."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "optim"):
        return None
    optimizer, loader = torch.optim.Optimizer, torch.utils.data.DataLoader
    if issubclass(kind, optimizer):
        return _of_optimizer if kind.__getstate__ is optimizer.__getstate__ else None
    if issubclass(kind, loader):
        return _of_loader if kind.__getstate__ is loader.__getstate__ else None
    return None


def _of_optimizer(name: str) -> bool:
    return name == "step" or name.startswith("_optimizer_")


def _of_loader(name: str) -> bool:
    return name == "_iterator"


def reduce_without(value: Any, is_transient: IsTransient) -> Any:
    """Pickle ``value`` by its class and the attributes that travel; of a loader, as one that was never iterated."""
    state = {name: item for name, item in value.__dict__.items() if not is_transient(name)}
    if is_transient is _of_loader:
        state["_iterator"] = None
    return copyreg.__newobj__, (type(value),), state  # type: ignore[attr-defined]  # typeshed leaves it out
