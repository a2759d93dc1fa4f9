from __future__ import annotations

import json
from typing import Any

import pytest

from jupyter_train.record import CheckpointPart, ResumePoint, RunSpec, checkpoint_part, resume_point

PART = CheckpointPart(
    number=3,
    step=430,
    epoch=2,
    batch=17,
    file="checkpoint-1-3.pt",
    size_bytes=10,
    worker="tls://127.0.0.1:1",
    names=("model", "optimizer"),
    metric={"val_loss": 0.25},
)
POINT = ResumePoint(
    run_id="20261122-153000-ab12cd",
    attempt=1,
    number=3,
    step=430,
    epoch=2,
    batch=17,
    files=("checkpoint-1-3.pt", "checkpoint-1-3.1.pt"),
)


def test_a_part_comes_back_as_it_was_told() -> None:
    assert checkpoint_part(json.loads(json.dumps(PART.to_payload()))) == PART


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 0},
        {"number": "x"},
        {"step": None},
        {"file": "../../etc/passwd"},
        {"file": "checkpoint-1-3.pt/../x"},
        {"metric": {"loss": "low"}},
        {"metric": 3},
    ],
)
def test_what_is_not_a_part_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint_part({**PART.to_payload(), **wrong})


def test_a_specification_carries_the_point_to_resume_from() -> None:
    spec = RunSpec(run_id=POINT.run_id, name="a", source="", ranks=2, resume=POINT)
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("wrong", [{}, {"files": []}, 3, {"files": ["/etc/passwd"]}])
def test_what_is_not_a_point_to_resume_from_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="not a point"):
        resume_point(wrong)
