"""The object ``train``, outside a run and for a rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from jupyter_train.runtime.recorder import Recorder
from jupyter_train.runtime.train import Place, Train
from tests.runtime.test_recorder import MemorySink


class Watching:
    step = 4
    should_stop = True


class Doubling:
    """Collectives of two ranks that hold the same."""

    def sum(self, value: Any) -> Any:
        return value * 2

    def mean(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value, value]


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def recorder(sink: MemorySink) -> Recorder:
    return Recorder(sink, run_id="r", attempt=1, rank=1)


@pytest.fixture
def ranked(recorder: Recorder) -> Train:
    train = Train()
    train.enter(
        Place(
            rank=1,
            world_size=2,
            local_rank=1,
            device=torch.device("cpu"),
            params={"lr": 0.1},
            recorder=recorder,
            observer=Watching(),
            collectives=Doubling(),
        )
    )
    return train


def written(recorder: Recorder) -> None:
    recorder.start()
    recorder.close()


def test_outside_a_run_it_is_rank_0_of_1() -> None:
    train = Train()
    assert (train.rank, train.world_size, train.local_rank, train.should_stop) == (0, 1, 0, False)
    assert dict(train.params) == {}
    assert isinstance(train.device, torch.device)


def test_outside_a_run_it_keeps_what_it_logs() -> None:
    train = Train()
    train.log(loss=1.0, accuracy=torch.tensor(0.5))
    train.log(loss=0.5)
    train.log(loss=0.25, step=10)
    assert train.history == {"loss": [(0, 1.0), (1, 0.5), (10, 0.25)], "accuracy": [(0, 0.5)]}


def test_outside_a_run_a_value_is_already_its_sum_mean_and_list() -> None:
    train = Train()
    value = torch.ones(3)
    assert train.sum(value) is value
    assert train.mean(value) is value
    assert train.gather(value) == [value]


def test_outside_a_run_progress_is_the_loop_itself() -> None:
    assert list(Train().progress(range(3))) == [0, 1, 2]


def test_a_rank_knows_its_place(ranked: Train) -> None:
    assert (ranked.rank, ranked.world_size, ranked.local_rank) == (1, 2, 1)
    assert ranked.params["lr"] == 0.1
    assert ranked.should_stop
    assert repr(ranked) == "<train: rank 1 of 2>"


def test_params_cannot_be_written(ranked: Train) -> None:
    params: Any = ranked.params
    with pytest.raises(TypeError):
        params["lr"] = 1


def test_a_value_lies_at_the_optimizer_step_unless_said_otherwise(
    ranked: Train, recorder: Recorder, sink: MemorySink
) -> None:
    ranked.log(loss=0.5)
    ranked.log(loss=0.25, step=9)
    written(recorder)
    assert sink.column("loss") == ([4, 9], [0.5, 0.25])


def test_ranks_are_asked_for_sum_mean_and_gather(ranked: Train) -> None:
    assert (ranked.sum(2), ranked.mean(2), ranked.gather("a")) == (4, 2, ["a", "a"])


def test_a_bad_value_is_named_with_what_it_is(ranked: Train) -> None:
    for train in (ranked, Train()):
        with pytest.raises(TypeError, match=r"train.log\(loss=...\) got a tensor of shape \(3,\)"):
            train.log(loss=torch.ones(3))


@pytest.mark.parametrize("step", [0.5, "1"])
def test_a_step_is_a_whole_number(ranked: Train, step: Any) -> None:
    with pytest.raises(TypeError, match="whole number"):
        ranked.log(loss=0.1, step=step)


def test_progress_tells_where_the_loop_stands(ranked: Train, recorder: Recorder, sink: MemorySink) -> None:
    assert list(ranked.progress(range(5), label="batches")) == [0, 1, 2, 3, 4]
    written(recorder)
    event: Any = sink.seen[-1]
    assert event.payload["stream"] == "progress"
    assert (event.payload["label"], event.payload["done"], event.payload["total"]) == ("batches", 5, 5)


def test_a_loop_that_is_entered_again_keeps_its_bar(
    ranked: Train, recorder: Recorder, sink: MemorySink
) -> None:
    for _ in range(2):
        for _ in ranked.progress(iter("ab")):
            pass
    written(recorder)
    (event,) = sink.seen
    assert event.payload["total"] is None  # type: ignore[union-attr]
    assert event.payload["done"] == 2  # type: ignore[union-attr]


def test_progress_has_the_length_of_what_it_wraps(ranked: Train) -> None:
    assert len(ranked.progress([1, 2])) == 2
    with pytest.raises(TypeError):
        len(ranked.progress(iter([1])))


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, np.uint64(2**63)])
def test_a_step_that_no_curve_can_hold_is_refused_where_it_is_logged(ranked: Train, step: Any) -> None:
    with pytest.raises(OverflowError, match="64 bits"):
        ranked.log(step=step, loss=1.0)
