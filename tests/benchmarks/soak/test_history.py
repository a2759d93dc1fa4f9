"""What ranks wrote down tells what was done, what counts, and what was done twice."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import history
from benchmarks.soak.history import Step


def step(attempt: int, number: int, *ids: int, epoch: int = 0, rank: int = 0) -> Step:
    return Step(attempt=attempt, rank=rank, time=0.0, epoch=epoch, step=number, ids=ids)


RETRIED = [step(1, 1, 0), step(1, 2, 1), step(1, 3, 2), step(2, 2, 1), step(2, 3, 2), step(2, 4, 3)]


def test_steps_after_the_checkpoint_of_a_lost_attempt_do_not_count() -> None:
    assert [(s.attempt, s.step) for s in history.that_counts(RETRIED)] == [(1, 1), (2, 2), (2, 3), (2, 4)]
    assert history.repeated(RETRIED) == {2: 2}


def test_a_history_is_complete_where_each_sample_was_seen_once_an_epoch() -> None:
    counts = history.that_counts(RETRIED)
    assert history.ids_are_complete(counts, samples=4, epochs=1)
    assert not history.ids_are_complete(RETRIED, samples=4, epochs=1)
    assert not history.ids_are_complete(counts[:-1], samples=4, epochs=1)
    assert not history.ids_are_complete(counts, samples=4, epochs=2)


def test_files_of_ranks_are_read_but_for_a_last_line_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "seen-1-0").write_text("1.5 0 1 4 2\n2.5 0 2 7")
    (tmp_path / "seen-2-1").write_text("3.5 1 2 9\n")
    assert history.read(tmp_path) == [
        Step(attempt=1, rank=0, time=1.5, epoch=0, step=1, ids=(4, 2)),
        Step(attempt=2, rank=1, time=3.5, epoch=1, step=2, ids=(9,)),
    ]
