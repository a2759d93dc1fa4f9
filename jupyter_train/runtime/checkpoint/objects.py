"""The state of modules, optimizers, generators and other objects, put back so that they go on as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jupyter_train.runtime.checkpoint.freezing import KIND
from jupyter_train.runtime.checkpoint.sharded import SHARDED, fill

if TYPE_CHECKING:
    from jupyter_train.runtime.checkpoint.loading import Loading

#: Those that come with numpy; a file may name no other class.
BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")

Fresh = Callable[..., Any]
"""Makes a copy of something saved; of sharded tensors in it those that are given beside."""


def load_module(loading: Loading, target: Any, saved: Mapping[str, Any], at: str) -> None:
    """Parameters, buffers, gradients, and what is in training mode and may be trained."""
    import torch

    if not isinstance(target, torch.nn.Module):
        raise _other_kind(at, saved["type"], target)
    before = dict(target.named_parameters(remove_duplicate=False)) | dict(
        target.named_buffers(remove_duplicate=False)
    )
    state = {}
    parts = [(one, before[name]) for name, one in saved["state"].items() if is_marker(one) and name in before]
    fill(parts)
    for name, one in saved["state"].items():
        if is_marker(one):
            state[name] = before.get(name)
            continue
        state[name] = one if isinstance(one, torch.Tensor) else loading.into(None, one, f"{at}.{name}")
        _take_dtype(before.get(name), one)
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise _does_not_fit(at, error) from None
    present = dict(target.named_parameters(remove_duplicate=False)) | dict(
        target.named_buffers(remove_duplicate=False)
    )
    for name, one in saved["state"].items():
        if isinstance(one, torch.Tensor) and name in present and present[name].shape == one.shape:
            loading.tensors.now_in(one, present[name])
    for name, one in saved["buffers"].items():
        owner, _, last = name.rpartition(".")
        module = target.get_submodule(owner)
        module._buffers[last] = loading.into(module._buffers.get(last), one, f"{at}.{name}")
    evaluating, fixed = set(saved["evaluating"]), set(saved["fixed"])
    for name, module in target.named_modules():
        module.training = name not in evaluating
    grads = saved.get("grads")
    for name, parameter in target.named_parameters():
        parameter.requires_grad_(name not in fixed)
        if grads is not None:
            grad = grads.get(name)
            parameter.grad = None if grad is None else _gradient(grad, parameter)


def load_optimizer(target: Any, saved: Mapping[str, Any], at: str, *, fresh: Fresh) -> None:
    """Groups and state; what torch would bring into the type of the parameter stays in its own."""
    import torch

    if not isinstance(target, torch.optim.Optimizer):
        raise _other_kind(at, saved["type"], target)
    parameters = [one for group in target.param_groups for one in group["params"]]
    numbers = [number for group in saved["state"]["param_groups"] for number in group["params"]]
    if len(numbers) != len(parameters):
        raise _does_not_fit(at, ValueError(f"it had {len(numbers)} parameters and has {len(parameters)}"))
    state = fresh(
        saved["state"], _filled(saved["state"]["state"], dict(zip(numbers, parameters, strict=True)))
    )
    try:
        target.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise _does_not_fit(at, error) from None
    for number, parameter in zip(numbers, parameters, strict=True):
        kept = saved["state"]["state"].get(number)
        now = target.state.get(parameter)
        if not isinstance(kept, dict) or not isinstance(now, dict):
            continue
        for name, one in kept.items():
            if isinstance(one, dict) and isinstance(one.get("data"), torch.Tensor):
                one = one["data"]  # noqa: PLW2901  # a tensor of a device
            has = now.get(name)
            if isinstance(one, torch.Tensor) and isinstance(has, torch.Tensor) and has.dtype != one.dtype:
                now[name] = one.detach().clone().to(has.device)


def _filled(state: Mapping[Any, Any], parameters: Mapping[Any, Any]) -> dict[int, Any]:
    """The sharded tensors in an optimizer's state, each laid out as its parameter, by the id of what stands for them."""
    import torch

    parts = [
        (one, torch.empty_like(parameters[number].detach(), dtype=one["dtype"]))
        for number, kept in state.items()
        if isinstance(kept, dict) and number in parameters
        for one in kept.values()
        if is_marker(one) and tuple(one["shape"]) == tuple(parameters[number].shape)
    ]
    fill(parts)
    return {id(marker): tensor for marker, tensor in parts}


def load_object(target: Any, saved: Mapping[str, Any], at: str, *, fresh: Fresh) -> None:
    """By the object's own ``load_state_dict``; functions that its state names stay those it has now."""
    if not callable(getattr(target, "load_state_dict", None)):
        raise _other_kind(at, saved["type"], target)
    state = fresh(saved["state"])
    if code := saved.get("code"):
        now = target.state_dict()
        state |= {name: now[name] for name in code if name in now}
    try:
        target.load_state_dict(state)
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise _does_not_fit(at, error) from error


def load_random(kind: str, target: Any, saved: Mapping[str, Any], at: str, *, fresh: Fresh) -> None:
    """Generators of random numbers go on where they stood."""
    import numpy as np
    import torch

    state = fresh(saved["state"])
    try:
        if kind == "generator" and isinstance(target, torch.Generator):
            target.set_state(state)
        elif kind == "random" and isinstance(target, np.random.Generator):
            target.bit_generator.state = state
        elif kind == "random" and isinstance(target, np.random.RandomState):
            target.set_state(state)
        elif kind == "random" and isinstance(target, random.Random):
            target.setstate(state)
        else:
            raise _other_kind(at, "generator of random numbers", target)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _does_not_fit(at, error) from None


def new_random(kind: str, saved: Mapping[str, Any], at: str) -> Any:
    """A generator that goes on as the one that was kept, where the cell has none now.

    Raises:
        CannotRestore: it is an object of another kind: only the cell can make one.
    """
    import numpy as np
    import torch

    from jupyter_train.runtime.checkpoint.loading import CannotRestore, plain_value

    made: Any
    if kind == "generator":
        made = torch.Generator(saved["device"])
    elif kind == "random" and saved["of"] == "python":
        made = random.Random()
    elif kind == "random" and saved["of"] == "numpy legacy":
        made = np.random.RandomState()
    elif kind == "random":
        name = str(saved["state"]["bit_generator"])
        if name not in BIT_GENERATORS:
            raise CannotRestore(f"{at} was a generator of numpy's over {name}: make it before the loop")
        made = np.random.Generator(getattr(np.random, name)())
    else:
        raise CannotRestore(
            f"{at} was of the type {saved['type']} when the checkpoint was written, and is not there now: "
            "make it before the loop, as it was made then"
        )
    load_random(kind, made, saved, at, fresh=plain_value)
    return made


def is_marker(saved: Any) -> bool:
    """It stands for a tensor of which each rank had a part."""
    return type(saved) is dict and saved.get(KIND) == SHARDED


def _take_dtype(target: Any, saved: Any) -> None:
    """A parameter that had another type by then has it now, too: nothing is rounded."""
    import torch

    if (
        isinstance(target, torch.Tensor)
        and isinstance(saved, torch.Tensor)
        and target.dtype != saved.dtype
        and not torch.nn.parameter.is_lazy(target)
    ):
        target.data = target.data.to(saved.dtype)


def _gradient(saved: Any, parameter: Any) -> Any:
    import torch

    if is_marker(saved):
        grad = torch.empty_like(parameter.detach(), dtype=saved["dtype"])
        fill([(saved, grad)])
        return grad
    tensor = saved["data"] if isinstance(saved, dict) else saved
    return tensor.detach().clone().to(parameter.device)


def _other_kind(at: str, was: str, target: Any) -> Exception:
    from jupyter_train.runtime.checkpoint.loading import CannotRestore

    return CannotRestore(
        f"{at} was of the type {was} when the checkpoint was written and is of the type {type(target).__name__} now"
    )


def _does_not_fit(at: str, error: BaseException) -> Exception:
    from jupyter_train.runtime.checkpoint.loading import CannotRestore

    told = error.args[0] if error.args else type(error).__name__
    return CannotRestore(f"the checkpoint's {at} does not fit the one that the cell has now: {told}")
