"""What waits for the disk has a bound, and what is left out is remembered."""

from __future__ import annotations

from collections.abc import Callable

from jupyter_train.record import Event
from jupyter_train.store.backlog import Backlog, Gap, Item
from tests.store.conftest import Story

EVERYTHING = 10**9


def add(backlog: Backlog, event: Event, size: int = 10) -> bool:
    return backlog.add(event, b"x" * size)


def test_items_come_out_in_order_and_count_until_they_are_released(story: Callable[..., Story]) -> None:
    backlog, run = Backlog(1000), story()
    for n in range(5):
        assert add(backlog, run.loss(n, 1.0))
    assert backlog
    first = backlog.take(at_most_bytes=25)
    assert [i.seq for i in first] == [1, 2, 3]
    rest = backlog.take(EVERYTHING)
    assert [i.seq for i in rest] == [4, 5]
    assert not backlog
    assert backlog.size_bytes == 50
    backlog.release([*first, *rest])
    assert backlog.size_bytes == 0
    assert backlog.added == backlog.taken == 5


def test_one_item_is_taken_however_large(story: Callable[..., Story]) -> None:
    backlog = Backlog(1000)
    add(backlog, story().loss(1, 1.0), size=500)
    assert len(backlog.take(at_most_bytes=1)) == 1


def test_beyond_the_bound_metrics_are_left_out_and_states_are_kept(story: Callable[..., Story]) -> None:
    backlog, run = Backlog(30), story()
    kept = [add(backlog, e) for e in (run.state("PENDING"), run.loss(1, 1.0), run.loss(2, 1.0))]
    lost = [add(backlog, run.loss(3, 1.0)), add(backlog, run.prints("x"))]
    more = [
        add(backlog, run.state("STARTING")),
        add(backlog, run.loss(4, 1.0)),
        add(backlog, run.state("RUNNING")),
    ]
    assert (kept, lost, more) == ([True] * 3, [False] * 2, [True, False, True])
    taken = backlog.take(EVERYTHING)
    assert [(type(i), i.seq) for i in taken] == [
        (Item, 1),
        (Item, 2),
        (Item, 3),
        (Gap, 5),
        (Item, 6),
        (Gap, 7),
        (Item, 8),
    ]
    assert taken[3] == Gap(run_id=run.run_id, first_seq=4, seq=5, count=2)


def test_even_states_have_a_bound(story: Callable[..., Story]) -> None:
    backlog, run = Backlog(20), story()
    assert [add(backlog, run.state("PENDING")) for _ in range(6)] == [True] * 4 + [False] * 2


def test_gaps_of_several_runs_stay_apart(story: Callable[..., Story]) -> None:
    backlog, one, two = Backlog(10), story(1), story(2)
    add(backlog, one.loss(1, 1.0))
    for _ in range(3):
        add(backlog, one.loss(1, 1.0))
        add(backlog, two.loss(1, 1.0))
    assert backlog.open_gaps == 2
    gaps = [i for i in backlog.take(EVERYTHING) if isinstance(i, Gap)]
    assert {(g.run_id, g.first_seq, g.seq, g.count) for g in gaps} == {
        (one.run_id, 2, 4, 3),
        (two.run_id, 1, 3, 3),
    }
    assert not backlog


def test_only_what_the_summary_needs_is_kept_as_an_event(story: Callable[..., Story]) -> None:
    backlog, run = Backlog(EVERYTHING), story()
    for event in (run.state("PENDING"), run.loss(1, 1.0), run.prints("x" * 100)):
        add(backlog, event)
    held = [i.event is not None for i in backlog.take(EVERYTHING) if isinstance(i, Item)]
    assert held == [True, True, False]
