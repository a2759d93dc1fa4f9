"""Placement: all ranks at once or none, in order, close together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_train.control.placement import Seat, by_preference, check_fits, choose
from jupyter_train.errors import NotEnoughWorkers


def seat(
    name: str, host: str = "a", *, run_id: str = "", is_ready: bool = True, has_agent: bool = True
) -> Seat:
    return Seat(
        worker=f"tcp://{host}:{name}",
        name=name,
        host=host,
        run_id=run_id,
        is_ready=is_ready,
        has_agent=has_agent,
    )


def test_ranks_take_a_worker_each() -> None:
    places = choose(2, [seat("0"), seat("1"), seat("2")])
    assert places is not None
    assert [(p.rank, p.name, p.local_rank, p.local_world_size) for p in places] == [
        (0, "0", 0, 2),
        (1, "1", 1, 2),
    ]


def test_all_ranks_or_none() -> None:
    assert choose(3, [seat("0"), seat("1")]) is None


def test_ready_zygotes_come_first() -> None:
    places = choose(1, by_preference([seat("0", is_ready=False), seat("1")]))
    assert places is not None
    assert places[0].name == "1"


def test_a_cold_zygote_is_better_than_waiting() -> None:
    places = choose(2, [seat("0", is_ready=False), seat("1")])
    assert places is not None
    assert {p.name for p in places} == {"0", "1"}


def test_workers_are_numbered_as_people_count() -> None:
    places = choose(3, by_preference([seat("10"), seat("9"), seat("2")]))
    assert places is not None
    assert [p.name for p in places] == ["2", "9", "10"]


def test_one_host_that_fits_is_better_than_two() -> None:
    seats = [seat("0", "a"), seat("1", "b"), seat("2", "b"), seat("3", "a"), seat("4", "a")]
    places = choose(2, seats)
    assert places is not None
    assert [p.host for p in places] == ["b", "b"]


def test_ranks_of_one_host_are_neighbours() -> None:
    seats = [seat("0", "a"), seat("1", "b"), seat("2", "a"), seat("3", "b"), seat("4", "b")]
    places = choose(5, seats)
    assert places is not None
    assert [(p.host, p.local_rank, p.local_world_size) for p in places] == [
        ("b", 0, 3),
        ("b", 1, 3),
        ("b", 2, 3),
        ("a", 0, 2),
        ("a", 1, 2),
    ]


def test_busy_workers_and_workers_without_an_agent_are_not_free() -> None:
    assert [seat("0").is_free, seat("1", run_id="r").is_free, seat("2", has_agent=False).is_free] == [
        True,
        False,
        False,
    ]


def test_more_ranks_than_workers_says_what_to_do() -> None:
    with pytest.raises(NotEnoughWorkers) as caught:
        check_fits(8, 4, "lab")
    assert str(caught.value) == (
        'the run needs 8 workers but cluster "lab" has 4. '
        "Scale it with  %train cluster scale 8,  or pass  --ranks 4."
    )


def test_an_empty_cluster_is_not_advised_to_run_no_ranks() -> None:
    with pytest.raises(NotEnoughWorkers, match=r"needs 1 worker but the cluster has 0.*scale 1\.$"):
        check_fits(1, 0)


seats = st.lists(
    st.builds(seat, st.integers(0, 99).map(str), st.sampled_from("abc"), is_ready=st.booleans()),
    max_size=8,
    unique_by=lambda s: s.worker,
)


@given(st.integers(1, 8), seats)
def test_places_are_sound(ranks: int, free: list[Seat]) -> None:
    places = choose(ranks, by_preference(free))
    assert (places is None) == (len(free) < ranks), "all or none"
    if places is None:
        return
    assert [p.rank for p in places] == list(range(ranks))
    assert len({p.worker for p in places}) == ranks, "a worker holds one rank"
    assert {p.worker for p in places} <= {s.worker for s in free}
    by_host: dict[str, list[int]] = {}
    for p in places:
        by_host.setdefault(p.host, []).append(p.rank)
        assert p.local_rank == len(by_host[p.host]) - 1
    for host, numbers in by_host.items():
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "neighbours"
        assert {p.local_world_size for p in places if p.host == host} == {len(numbers)}
