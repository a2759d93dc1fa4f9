"""A rank's surroundings."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from jupyter_train.record import RunSpec
from jupyter_train.runtime.environment import rank_environ, seed_everything, thread_count
from jupyter_train.runtime.job import Job

SPEC = RunSpec(run_id="20261122-101010-abcdef", name="x", source="", ranks=2)


def job(**changes: object) -> Job:
    plain = Job(
        spec=SPEC.to_dict(),
        attempt=2,
        rank=1,
        local_rank=1,
        world_size=4,
        local_world_size=2,
        master_host="127.0.0.1",
        master_port=1234,
        home="/nowhere",
        worker="tcp://127.0.0.1:1",
        cores=8,
        device_index=1,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture
def random_states() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_job_survives_its_way_through_memory() -> None:
    given = job(unset=("OMP_NUM_THREADS",))
    read = Job.from_file(given.to_file())
    assert read.run_spec == given.run_spec
    assert replace(read, spec={}) == replace(given, spec={})


def test_torch_distributed_finds_its_names() -> None:
    environ = rank_environ(job(), SPEC)
    assert {name: environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")} == {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
    }
    assert (environ["MASTER_ADDR"], environ["MASTER_PORT"]) == ("127.0.0.1", "1234")
    assert environ["JUPYTER_TRAIN_RUN"] == SPEC.run_id


def test_a_rank_without_a_store_serves_its_own_process_group() -> None:
    assert rank_environ(job(), SPEC)["TORCHELASTIC_USE_AGENT_STORE"] == "True"
    assert "TORCHELASTIC_USE_AGENT_STORE" not in rank_environ(job(master_port=0), SPEC)


def test_gloo_is_bound_to_loopback_only_where_all_ranks_are_on_one_host() -> None:
    assert rank_environ(job(), SPEC)["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in rank_environ(job(master_host="10.0.0.1"), SPEC)


def test_the_users_variables_do_not_displace_ours() -> None:
    environ = rank_environ(job(), replace(SPEC, environment={"RANK": "9", "HF_HOME": "/data"}))
    assert (environ["RANK"], environ["HF_HOME"]) == ("1", "/data")


def test_cores_are_shared_among_the_ranks_of_a_host() -> None:
    assert thread_count(job(), SPEC) == 4
    assert thread_count(job(cores=1), SPEC) == 1
    assert thread_count(job(), replace(SPEC, environment={"OMP_NUM_THREADS": "3"})) == 3


@pytest.mark.usefixtures("random_states")
def test_a_seed_makes_all_generators_alike() -> None:
    seed_everything(replace(SPEC, seed=7), None)
    first = draw()
    seed_everything(replace(SPEC, seed=7), None)
    assert draw() == first


@pytest.mark.usefixtures("random_states")
def test_without_a_seed_the_kernels_states_go_on() -> None:
    from jupyter_train.transport.randomness import random_state

    state = random_state()
    first = draw()
    seed_everything(SPEC, state)
    assert draw() == first


@pytest.mark.usefixtures("random_states")
def test_a_generator_the_kernel_did_not_have_is_alike_on_all_ranks_of_a_run() -> None:
    seed_everything(SPEC, {"random": None, "numpy": None, "torch": None})
    first = draw()
    seed_everything(SPEC, None)
    assert draw() == first
    seed_everything(replace(SPEC, run_id="20261122-101010-000000"), None)
    assert not set(draw()) & set(first)


def test_values_of_the_environment_are_not_left_on_a_disk(tmp_path: object) -> None:
    fd = job().to_file()
    try:
        assert "memfd" in os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
