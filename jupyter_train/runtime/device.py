"""Which device a rank trains on. Nothing here runs before the rank is forked: a zygote never touches CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_index(environ: Mapping[str, str], *, rotated: bool, local_rank: int, place: int) -> int:
    """Which of the GPUs that a worker sees is for its rank.

    Args:
        environ: the worker's environment.
        rotated: every worker of the host sees all GPUs in an order of its own (dask-cuda),
            so that its own one comes first.
        local_rank: of the run's ranks on this host.
        place: of this rank among those of this worker, from 0.
    """
    visible = [name for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return place if rotated or len(visible) == 1 else local_rank


def pick_device(index: int) -> torch.device:
    """The device of this rank: the GPU ``index`` (counted round), made current, else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", index % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def backend_for(device: torch.device, ranks_on_device: int = 1) -> str:
    """The process group backend: NCCL where each rank has a GPU of its own, else gloo."""
    import torch.distributed as dist

    alone_on_gpu = device.type == "cuda" and ranks_on_device == 1
    return "nccl" if alone_on_gpu and dist.is_nccl_available() else "gloo"
