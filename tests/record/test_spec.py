"""A RunSpec travels as JSON and comes back the same."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from jupyter_train.home import RUN_ID
from jupyter_train.record import (
    Call,
    ContentRef,
    Event,
    EventKind,
    RunSpec,
    new_run_id,
    pack_event,
    unpack_event,
)

FULL = RunSpec(
    run_id="20261122-153000-ab12cd",
    name="digits ✓",
    source="loss.backward()\n",
    first_line=3,
    ranks=4,
    call=Call(function="function f", args=("argument a",), kwargs={"b": "argument b"}, file="/x.py"),
    capture=(ContentRef(key="0" * 32, size_bytes=10), ContentRef(key="f" * 32, size_bytes=0)),
    captured_names=("model", "loader"),
    strategy="none",
    batch="per-rank",
    sync_batchnorm=False,
    parting_timeout_s=5.0,
    seed=7,
    params={"lr": 0.1, "layers": [1, 2], "note": "é"},
    tags={"who": "me"},
    keep=("model",),
    timeout_s=12.5,
    cwd="/home/x",
    sys_path=("/a", "/b"),
    environment={"TOKEN": "secret"},
    session="kernel-1",
    notebook="a/b.ipynb",
    cluster="local",
    submitted=1763825400.5,
)


@pytest.mark.parametrize("spec", [FULL, RunSpec(run_id=FULL.run_id, name="", source="", ranks=1)])
def test_a_spec_survives_json(spec: RunSpec) -> None:
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_spec_survives_an_event() -> None:
    event = Event(
        run_id=FULL.run_id, time=1.0, kind=EventKind.STATE, payload={"spec": FULL.to_dict(for_journal=True)}
    )
    back = RunSpec.from_dict(unpack_event(pack_event(event)).payload["spec"])
    assert back == replace(FULL, environment={})


def test_keep_of_no_names_differs_from_keep_all() -> None:
    nothing = replace(FULL, keep=())
    assert RunSpec.from_dict(json.loads(json.dumps(nothing.to_dict()))).keep == ()
    assert RunSpec.from_dict(replace(FULL, keep=None).to_dict()).keep is None


def test_the_journal_gets_no_values_of_environment_variables() -> None:
    assert "secret" not in json.dumps(FULL.to_dict(for_journal=True))
    assert FULL.to_dict()["environment"] == {"TOKEN": "secret"}


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert RunSpec.from_dict(FULL.to_dict() | {"budget": 5}) == FULL


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"run_id": "x"},
        FULL.to_dict() | {"capture": [{"hash": "x"}]},
        FULL.to_dict() | {"capture": 5},
        FULL.to_dict() | {"sys_path": None},
    ],
)
def test_what_is_no_spec_is_a_valueerror(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not the specification of a run"):
        RunSpec.from_dict(data)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.ranks = 2  # type: ignore[misc]


def test_ids_of_runs_sort_by_time_and_may_become_paths() -> None:
    ids = [new_run_id(now) for now in (0.0, 1763825400.0, 1763825401.0)]
    assert ids == sorted(ids)
    assert all(RUN_ID.fullmatch(i) for i in ids)
    assert ids[0].startswith("19700101-000000-")
    assert len({new_run_id(0.0) for _ in range(50)}) > 1
