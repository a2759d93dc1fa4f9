"""Optimizers lose a mark on the way that learning-rate schedulers look for.

A scheduler wraps ``optimizer.step`` on the instance, and warns when the wrapper
is gone ("optimizer.step() has been overridden"). Optimizers leave it out of
their pickle. Without a new one every captured pair would warn for no reason.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import wraps
from types import MethodType
from typing import Any


def track_steps(objects: Iterable[Any]) -> None:
    """Wrap ``step`` again on the optimizer of each scheduler among ``objects``."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "optim"):
        return
    base = torch.optim.lr_scheduler.LRScheduler
    for value in objects:
        optimizer = value.__dict__.get("optimizer") if isinstance(value, base) else None
        if optimizer is not None and not hasattr(optimizer.step, "_wrapped_by_lr_sched"):
            _wrap_step(optimizer)


def _wrap_step(optimizer: Any) -> None:
    @wraps(type(optimizer).step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        # Looked up at each call: what is patched on the class later is honoured.
        return type(self).step(self, *args, **kwargs)

    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    optimizer.step = MethodType(step, optimizer)
