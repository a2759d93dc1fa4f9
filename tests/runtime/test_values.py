"""Numbers on their way into a metric."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from jupyter_train.runtime.values import Snapshot, resolve, snapshot


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (0.5, 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.array(2.5), 2.5),
        (torch.tensor(1.5), 1.5),
        (torch.tensor([7]), 7.0),
        (torch.tensor(2.0, requires_grad=True), 2.0),
        (torch.tensor(3, dtype=torch.bfloat16), 3.0),
        (Decimal("0.25"), 0.25),
        (math.inf, math.inf),
    ],
)
def test_one_number_is_taken_whatever_carries_it(value: Any, number: float) -> None:
    assert snapshot(value) == number


def test_nan_is_a_value() -> None:
    assert math.isnan(snapshot(torch.tensor(math.nan)))  # type: ignore[arg-type]


def test_what_happens_to_a_tensor_afterwards_does_not_matter() -> None:
    total = torch.tensor(1.0)
    taken = snapshot(total)
    total += 1
    assert taken == 1.0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.ones(3), r"shape \(3,\)"),
        (np.ones((2, 2)), r"shape \(2, 2\)"),
        (torch.tensor(1j), "complex"),
        (1j, "complex"),
        ("0.5", "a str"),
        (None, "NoneType"),
        ([1.0], "list"),
    ],
)
def test_anything_else_is_refused_with_what_it_is(value: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        snapshot(value)


def test_tensors_on_a_device_are_read_together_and_in_place() -> None:
    on_device = [Snapshot(torch.tensor(float(i), dtype=torch.float32), None) for i in range(3)]
    assert resolve([on_device[2], 0.5, on_device[0], on_device[1]]) == [2.0, 0.5, 0.0, 1.0]
