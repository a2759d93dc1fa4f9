"""What earlier cells told torch for the whole process."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

_ON_THE_HOST = ("cpu", "meta")


def torch_settings() -> dict[str, Any]:
    """What differs from torch's defaults in this process, as plain values; empty where torch is not imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, read in _READ.items():
            try:
                found[key] = read(torch)
            except (AttributeError, RuntimeError):
                continue  # another release, or settings of old and new style mixed: torch itself refuses to tell
    return {key: value for key, value in found.items() if value != _DEFAULTS[key]}


_DEFAULTS: dict[str, Any] = {
    "dtype": "float32",
    "device": "cpu",
    "grad": True,
    "anomaly": (False, True),
    "deterministic": (False, False),
    "matmul": "highest",
    "benchmark": False,
    "cudnn_deterministic": False,
    "cudnn": True,
    "threads": None,
    "print": {},
    "sharing": "file_descriptor",
    "warn_always": False,
}


def restore_torch(found: Mapping[str, Any], *, device: str, threads: int) -> list[str]:
    """Tell torch in this process the same. Call in the thread that runs the cell: two settings are a thread's own.

    Args:
        found: as :func:`torch_settings` gives it.
        device: takes the place of an accelerator that is the default device in the notebook.
        threads: this rank's share of the host; a smaller number that the user chose is obeyed.

    Returns:
        Remarks.
    """
    import torch

    for key, restore in _RESTORE.items():
        if key in found:
            restore(torch, found[key])
    if found.get("threads"):
        torch.set_num_threads(min(found["threads"], threads))
    given = found.get("device", "cpu")
    if given == "cpu":
        return []
    if given in _ON_THE_HOST:
        torch.set_default_device(given)
        return []
    torch.set_default_device(device)
    same = given.partition(":")[0] == device.partition(":")[0]
    return [] if same else [f"torch's default device is {given} in the notebook and {device} here"]


def forget_thread_settings() -> None:
    """Undo what would disturb those who work after the cell: default device and grad mode."""
    import torch

    if _default_device() != "cpu":
        torch.set_default_device(None)
    torch.set_grad_enabled(True)


_READ: dict[str, Any] = {
    "dtype": lambda torch: str(torch.get_default_dtype()).removeprefix("torch."),
    "device": lambda torch: _default_device(),
    "grad": lambda torch: torch.is_grad_enabled(),
    "anomaly": lambda torch: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
    "deterministic": lambda torch: (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    ),
    "matmul": lambda torch: torch.get_float32_matmul_precision(),
    "benchmark": lambda torch: torch.backends.cudnn.benchmark,
    "cudnn_deterministic": lambda torch: torch.backends.cudnn.deterministic,
    "cudnn": lambda torch: torch.backends.cudnn.enabled,
    "threads": lambda torch: _chosen_threads(torch.get_num_threads()),
    "print": lambda torch: _print_options(),
    "sharing": lambda torch: torch.multiprocessing.get_sharing_strategy(),
    "warn_always": lambda torch: torch.is_warn_always_enabled(),
}

_RESTORE: dict[str, Any] = {
    "dtype": lambda torch, value: torch.set_default_dtype(getattr(torch, value)),
    "grad": lambda torch, value: torch.set_grad_enabled(value),
    "anomaly": lambda torch, value: torch.autograd.set_detect_anomaly(*value),
    "deterministic": lambda torch, value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    "matmul": lambda torch, value: torch.set_float32_matmul_precision(value),
    "benchmark": lambda torch, value: setattr(torch.backends.cudnn, "benchmark", value),
    "cudnn_deterministic": lambda torch, value: setattr(torch.backends.cudnn, "deterministic", value),
    "cudnn": lambda torch, value: setattr(torch.backends.cudnn, "enabled", value),
    "print": lambda torch, value: torch.set_printoptions(**value),
    "sharing": lambda torch, value: torch.multiprocessing.set_sharing_strategy(value),
    "warn_always": lambda torch, value: torch.set_warn_always(value),
}


def _default_device() -> str:
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._device import DeviceContext

    # Not get_default_device: for an accelerator it makes a tensor, which would start CUDA.
    for mode in reversed(_get_current_function_mode_stack()):  # type: ignore[no-untyped-call]
        if isinstance(mode, DeviceContext):
            return str(mode.device)
    return "cpu"


def _chosen_threads(threads: int) -> int | None:
    """``threads`` where it is not what torch takes by itself: all cores, the physical ones, or a variable's number."""
    import psutil

    own = {len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}
    own |= {os.cpu_count(), psutil.cpu_count(logical=False)}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        given = os.environ.get(name, "")
        own |= {int(given)} if given.isdigit() else set()
    return None if threads in own else threads


def _print_options() -> dict[str, Any]:
    from torch._tensor_str import PRINT_OPTS

    default, found = type(PRINT_OPTS)(), {}
    for name in ("precision", "threshold", "edgeitems", "linewidth", "sci_mode"):
        value = getattr(PRINT_OPTS, name)
        if value != getattr(default, name):
            found[name] = value
    return found
