"""Hooks that the cell puts on parameters: they are given the gradients of one process, after these were averaged.

While a split backward runs a hook would see the gradient of this rank's share,
times the number of ranks. One that masks it would do no harm; one that clips
it, or steps an optimizer, would train something else.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """The hooks of one parameter, taken off for the length of a backward."""

    parameter: torch.Tensor
    before: torch.Tensor | None  #: what its gradient was
    on_gradient: dict[int, Any]  #: of ``register_hook``: may return another gradient
    on_accumulated: dict[int, Any]  #: of ``register_post_accumulate_grad_hook``


class CellHooks:
    """Main thread of a rank."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._hooked: dict[int, weakref.ref[torch.Tensor]] = {}
        self._held: list[_Held] = []

    def install(self, patches: Patches) -> None:
        """Notice hooks that are put on leaves."""
        for name in ("register_hook", "register_post_accumulate_grad_hook"):
            patches.replace(torch.Tensor, name, self._noticing(getattr(torch.Tensor, name)))

    def _noticing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def register(tensor: torch.Tensor, hook: Any) -> Any:
            handle = original(tensor, hook)
            if tensor.is_leaf and not self._is_ours(hook):
                self._hooked[id(tensor)] = weakref.ref(tensor)
            return handle

        return register

    def _is_ours(self, hook: Any) -> bool:
        return isinstance(hook, functools.partial) and hook.func == self._registry.on_gradient

    def hold(self) -> None:
        """A split backward begins: take the hooks off its parameters."""
        for key, ref in list(self._hooked.items()):
            parameter = ref()
            if parameter is None:
                del self._hooked[key]
            elif self._registry.number(parameter) is not None:
                self._held.append(self._taken_off(parameter))

    def _taken_off(self, parameter: torch.Tensor) -> _Held:
        grad = parameter.grad
        held = _Held(
            parameter=parameter,
            before=None if grad is None else grad.detach().clone(),
            on_gradient=dict(parameter._backward_hooks or {}),
            on_accumulated={
                key: hook
                for key, hook in (parameter._post_accumulate_grad_hooks or {}).items()
                if not self._is_ours(hook)
            },
        )
        # The dictionaries are those that autograd looks into.
        for key in held.on_gradient:
            del parameter._backward_hooks[key]  # type: ignore[union-attr]
        for key in held.on_accumulated:
            del parameter._post_accumulate_grad_hooks[key]
        return held

    def put_back(self) -> list[_Held]:
        """It has ended, well or not; what :meth:`run` is to be given."""
        held, self._held = self._held, []
        for one in held:
            if one.on_gradient:
                one.parameter._backward_hooks.update(one.on_gradient)  # type: ignore[union-attr]
            if one.on_accumulated:
                one.parameter._post_accumulate_grad_hooks.update(one.on_accumulated)
        return held

    def run(self, held: list[_Held]) -> None:
        """The gradients are those of one process now: run the hooks of those that got one."""
        for one in held:
            grad = one.parameter.grad
            if grad is None or (one.before is not None and torch.equal(grad, one.before)):
                continue
            if one.on_gradient:
                new = grad.detach().clone() if one.before is None else grad.detach() - one.before
                for hook in one.on_gradient.values():
                    given = hook(new)
                    new = new if given is None else given
                with torch.no_grad():
                    grad.copy_(new if one.before is None else one.before + new)
            for hook in one.on_accumulated.values():
                hook(one.parameter)
