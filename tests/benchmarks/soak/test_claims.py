"""Campaigns are judged by what happened in each trial."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.soak import claims
from benchmarks.soak.claims import Claim
from benchmarks.soak.cycles import Cycle, Look
from benchmarks.soak.ends import Left
from benchmarks.soak.interrupts import Interrupted
from benchmarks.soak.kills import Killed

GOOD = Interrupted(
    place="step",
    at_s=3.0,
    found="RUNNING",
    graceful_s=0.5,
    forced_s=None,
    state="CANCELLED",
    error="KeyboardInterrupt",
    steps=(40, 40),
    steps_in_kernel=40,
    left=0,
    gone_s=0.0,
    next_s=0.2,
    next_ok=True,
    intact=True,
)
FORCED = replace(GOOD, graceful_s=None, forced_s=0.1, steps_in_kernel=None)
KILLED = Killed(
    victim="rank",
    at_s=3.0,
    was_over=False,
    state="SUCCEEDED",
    said="",
    reason="rank 1 was killed by signal 9",
    attempts=2,
    detected_s=0.1,
    again_s=0.4,
    resumed_at=14,
    newest=14,
    done=17,
    repeated=3,
    same_weights=True,
    complete=True,
    left=0,
)
LEFT = Left(
    killed="kernel",
    at_s=1.0,
    state="SUCCEEDED",
    lost_s=None,
    values=160,
    values_expected=160,
    lines=160,
    lines_expected=160,
    wrong=0,
    resumed_at=None,
    resumed_from=None,
    resumed="",
    same_weights=None,
    left=0,
)
LOST = replace(
    LEFT,
    killed="scheduler",
    state="LOST",
    lost_s=0.1,
    values=12,
    values_expected=0,
    lines=0,
    lines_expected=0,
    resumed_at=7,
    resumed_from=7,
    resumed="SUCCEEDED",
    same_weights=True,
)
LOOK = Look(
    cycles=0,
    kept_runs=9,
    roles={"worker": 2},
    zombies=0,
    descriptors={"worker": 32},
    sockets={"worker": 22},
    private_bytes={"worker": 40_000_000},
    files=(),
)


def broken(judged: list[Claim]) -> int:
    return sum(not claim.holds for claim in judged)


def test_campaigns_in_which_all_went_well_hold() -> None:
    assert not broken(claims.of_interrupts([GOOD, FORCED]))
    assert not broken(claims.of_kills([KILLED]))
    assert not broken(claims.of_ends([LEFT, LOST]))
    assert not broken(
        claims.of_cycles([Cycle(kind="run", took_s=1, state="SUCCEEDED", error="")], [LOOK, LOOK])
    )


def test_each_thing_that_goes_wrong_with_an_interrupt_breaks_a_claim() -> None:
    for wrong in (
        replace(GOOD, graceful_s=5.1),
        replace(GOOD, steps=(40, 41)),
        replace(GOOD, steps_in_kernel=39),
        replace(GOOD, state="FAILED"),
        replace(GOOD, error="ValueError"),
        replace(GOOD, left=1),
        replace(GOOD, next_ok=False),
        replace(GOOD, intact=False),
        replace(FORCED, forced_s=1.2),
    ):
        assert broken(claims.of_interrupts([GOOD, wrong])) == 1, wrong


def test_an_interrupt_after_the_end_is_no_trial_of_stopping() -> None:
    late = replace(GOOD, state="SUCCEEDED", error="", graceful_s=9.0)
    assert not broken(claims.of_interrupts([late]))


def test_ranks_that_sleep_reach_no_step_together_and_are_not_asked_to() -> None:
    assert not broken(claims.of_interrupts([replace(GOOD, place="sleep", steps=(40, 41))]))


def test_each_thing_that_goes_wrong_with_a_kill_breaks_a_claim() -> None:
    for wrong in (
        replace(KILLED, detected_s=2.1),
        replace(KILLED, again_s=11.0),
        replace(KILLED, state="FAILED"),
        replace(KILLED, attempts=3),
        replace(KILLED, same_weights=False),
        replace(KILLED, complete=False),
        replace(KILLED, resumed_at=7, newest=14, repeated=10),
        replace(KILLED, repeated=4),
        replace(KILLED, left=1),
    ):
        assert broken(claims.of_kills([wrong])) == 1, wrong


def test_each_thing_that_goes_wrong_with_a_dead_kernel_or_scheduler_breaks_a_claim() -> None:
    for wrong in (
        replace(LEFT, state="LOST"),
        replace(LEFT, values=159),
        replace(LEFT, lines=159),
        replace(LEFT, wrong=1),
        replace(LEFT, left=1),
        replace(LOST, lost_s=61.0),
        replace(LOST, state="RUNNING"),
        replace(LOST, resumed_at=0),
        replace(LOST, same_weights=False),
    ):
        assert broken(claims.of_ends([wrong])) == 1, wrong


def test_each_thing_that_is_left_of_many_runs_breaks_a_claim() -> None:
    done = [Cycle(kind="kill", took_s=1, state="FAILED", error="RankLost")]
    for wrong in (
        replace(LOOK, roles={"worker": 2, "rank": 1}),
        replace(LOOK, zombies=1),
        replace(LOOK, descriptors={"worker": 33}),
        replace(LOOK, sockets={"worker": 23}),
        replace(LOOK, files=("/tmp/x",)),
    ):
        assert broken(claims.of_cycles(done, [LOOK, wrong])) == 1, wrong
    assert broken(claims.of_cycles([replace(done[0], error="PeerLost")], [LOOK, LOOK])) == 1


def test_memory_that_grows_to_the_end_is_a_leak_and_a_cache_that_fills_is_none() -> None:
    def looks(private: list[int]) -> list[Look]:
        return [
            replace(LOOK, cycles=20 * i, private_bytes={"worker": 40_000_000 + n})
            for i, n in enumerate(private)
        ]

    million = 1_000_000
    filling = looks([0, 3 * million, 5 * million, 5 * million, 5 * million, 5 * million])
    leaking = looks([0, million, 2 * million, 3 * million, 4 * million, 5 * million])
    stepping = looks([0, 0, 0, 0, 6 * million, 6 * million, 6 * million, 6 * million])
    assert claims.growth(filling)["worker"] < 1000
    assert claims.growth(stepping)["worker"] < 1000
    assert round(claims.growth(leaking)["worker"]) == 50_000
    assert broken(claims.of_cycles([], leaking)) == 1
    assert claims.growth(leaking[:2]) == {}
