"""Which device a rank gets."""

from __future__ import annotations

import pytest
import torch

from jupyter_train.runtime.device import backend_for, device_index, pick_device


@pytest.mark.parametrize(
    ("visible", "rotated", "local_rank", "place", "index"),
    [
        (None, False, 3, 0, 3),  # plain workers share all GPUs of the host
        ("2", False, 3, 0, 0),  # one GPU given to this worker
        ("2,3,0,1", True, 2, 0, 0),  # dask-cuda: every worker's own one comes first
        ("2,3,0,1", True, 2, 1, 1),  # a second rank on that worker
        ("0,1", False, 1, 0, 1),
        ("", False, 1, 0, 1),
    ],
)
def test_ranks_get_gpus_of_their_own(
    visible: str | None, rotated: bool, local_rank: int, place: int, index: int
) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert device_index(environ, rotated=rotated, local_rank=local_rank, place=place) == index


def test_without_a_gpu_it_is_the_cpu_and_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device = pick_device(3)
    assert device == torch.device("cpu")
    assert backend_for(device) == "gloo"
