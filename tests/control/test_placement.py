"""Placement: all ranks at once or none, in order, close together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_train.control.placement import Request, Seat, check_fits, choose, plan
from jupyter_train.errors import NotEnoughWorkers


def seat(
    name: str, host: str = "a", *, is_free: bool = True, is_ready: bool = True, has_agent: bool = True
) -> Seat:
    return Seat(
        worker=f"tcp://{host}:{name}",
        name=name,
        host=host,
        is_free=is_free,
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
    places = choose(1, [seat("0", is_ready=False), seat("1")])
    assert places is not None
    assert places[0].name == "1"


def test_a_cold_zygote_is_better_than_waiting() -> None:
    places = choose(2, [seat("0", is_ready=False), seat("1")])
    assert places is not None
    assert {p.name for p in places} == {"0", "1"}


def test_workers_are_numbered_as_people_count() -> None:
    places = choose(3, [seat("10"), seat("9"), seat("2")])
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


def test_busy_workers_and_workers_without_an_agent_are_left_alone() -> None:
    result = plan(
        [Request(run_id="r", ranks=2)], [seat("0"), seat("1", is_free=False), seat("2", has_agent=False)]
    )
    assert not result.placed
    assert [(w.queue_place, w.reason) for w in result.waiting] == [(1, "needs 2 workers, 1 of 3 free")]


def test_the_oldest_goes_first_and_the_others_say_their_place() -> None:
    queue = [Request(run_id=r, ranks=2) for r in ("first", "second", "third")]
    result = plan(queue, [seat("0"), seat("1"), seat("2")])
    assert [run_id for run_id, _ in result.placed] == ["first"]
    assert [(w.run_id, w.queue_place) for w in result.waiting] == [("second", 1), ("third", 2)]


def test_a_small_run_does_not_overtake_a_large_one() -> None:
    queue = [Request(run_id="large", ranks=2), Request(run_id="small", ranks=1)]
    assert not plan(queue, [seat("0"), seat("1", is_free=False)]).placed


def test_a_run_that_the_cluster_has_become_too_small_for_does_not_hold_up_others() -> None:
    queue = [Request(run_id="large", ranks=3), Request(run_id="small", ranks=1)]
    result = plan(queue, [seat("0"), seat("1")])
    assert [run_id for run_id, _ in result.placed] == ["small"]
    assert result.waiting[0].reason == "needs 3 workers, but only 2 of them are left in the cluster"


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
    st.builds(
        seat,
        st.integers(0, 99).map(str),
        st.sampled_from("abc"),
        is_free=st.booleans(),
        is_ready=st.booleans(),
        has_agent=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda s: s.worker,
)
queues = st.lists(st.integers(1, 8), max_size=5).map(
    lambda sizes: [Request(run_id=str(i), ranks=n) for i, n in enumerate(sizes)]
)


@given(queues, seats)
def test_a_plan_is_sound(queue: list[Request], all_seats: list[Seat]) -> None:
    result = plan(queue, all_seats)
    sizes = {r.run_id: r.ranks for r in queue}
    free = {s.worker for s in all_seats if s.is_free and s.has_agent}
    used = [p.worker for _, places in result.placed for p in places]

    assert len(used) == len(set(used)), "a worker holds one rank"
    assert set(used) <= free
    assert {r for r, _ in result.placed} | {w.run_id for w in result.waiting} == set(sizes)
    assert [w.queue_place for w in result.waiting] == list(range(1, len(result.waiting) + 1))
    for run_id, places in result.placed:
        assert [p.rank for p in places] == list(range(sizes[run_id])), "all ranks at once"
        by_host: dict[str, list[int]] = {}
        for p in places:
            by_host.setdefault(p.host, []).append(p.rank)
            assert p.local_rank == len(by_host[p.host]) - 1
        for host, ranks in by_host.items():
            assert ranks == list(range(ranks[0], ranks[0] + len(ranks))), "neighbours"
            assert {p.local_world_size for p in places if p.host == host} == {len(ranks)}


@given(queues, seats)
def test_nobody_who_could_start_once_all_are_free_is_overtaken(
    queue: list[Request], all_seats: list[Seat]
) -> None:
    result = plan(queue, all_seats)
    placed = {run_id for run_id, _ in result.placed}
    waited = [r.run_id for r in queue if r.run_id not in placed and r.ranks <= len(all_seats)]
    if waited:
        first = waited[0]
        assert all(int(run_id) < int(first) for run_id in placed)


@given(queues, st.integers(1, 6))
def test_every_run_that_fits_gets_its_turn(queue: list[Request], workers: int) -> None:
    names = [str(i) for i in range(workers)]
    waiting = [r for r in queue if r.ranks <= workers]
    for _ in range(len(waiting)):
        result = plan(waiting, [seat(n) for n in names])
        placed = {run_id for run_id, _ in result.placed}
        waiting = [r for r in waiting if r.run_id not in placed]
    assert not waiting
