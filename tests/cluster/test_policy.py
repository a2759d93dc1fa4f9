"""What the supervisor decides, without a process."""

from __future__ import annotations

from jupyter_train.cluster.policy import (
    GIVE_UP_AFTER,
    MAX_WORKERS,
    STEADY_S,
    Command,
    End,
    Policy,
    Shrink,
    StartWorker,
    Status,
)


def status(*workers: str, clients: int = 0, runs: int = 0, busy: bool = False) -> Status:
    return Status(clients=clients, runs=runs, busy=busy, workers=frozenset(workers))


def listening(workers: int = 2, idle_timeout_s: float = 100.0) -> Policy:
    policy = Policy(workers=workers, idle_timeout_s=idle_timeout_s, now=0.0)
    policy.scheduler_listens()
    return policy


def tick(policy: Policy, now: float = 0.0) -> list[Command]:
    return list(policy.tick(now))


def running(workers: int = 2, **options: float) -> Policy:
    policy = listening(workers, **options)
    tick(policy)
    policy.heard(status(*(f"w{number}" for number in range(workers)), clients=1), 0.0)
    return policy


def test_workers_wait_for_the_scheduler() -> None:
    policy = Policy(workers=2, idle_timeout_s=100.0, now=0.0)
    assert tick(policy) == []
    policy.scheduler_listens()
    assert tick(policy) == [StartWorker("w0"), StartWorker("w1")]
    assert tick(policy) == []


def test_it_is_complete_when_all_workers_are_there() -> None:
    policy = listening()
    policy.heard(status("w0"), 0.0)
    assert not policy.is_complete
    policy.heard(status("w0", "w1"), 0.0)
    assert policy.is_complete


def test_a_lost_worker_is_started_again_at_once() -> None:
    policy = running()
    policy.worker_exited("w1", STEADY_S + 1)
    assert tick(policy, STEADY_S + 1) == [StartWorker("w1")]


def test_one_that_keeps_failing_is_started_later_and_later() -> None:
    policy = running()
    now, waits = 0.0, []
    for _ in range(12):
        policy.worker_exited("w0", now)
        waits.append(policy.wait_s(now) or 0.0)
        now += waits[-1]
        assert tick(policy, now) == [StartWorker("w0")]
    assert waits[0] == 0.0
    assert waits == sorted(waits)
    assert waits[-1] == 30.0


def test_workers_that_never_come_up_end_the_cluster() -> None:
    policy = listening(workers=1)
    tick(policy)
    for number in range(GIVE_UP_AFTER):
        policy.worker_exited("w0", float(number))
    (end,) = tick(policy, 10.0)
    assert isinstance(end, End)
    assert end.is_failure


def test_growing_takes_the_lowest_free_names() -> None:
    policy = running(2)
    policy.scale(4)
    assert tick(policy) == [StartWorker("w2"), StartWorker("w3")]


def test_a_slip_of_the_finger_does_not_start_ten_thousand_processes() -> None:
    policy = running(1)
    policy.scale(10_000)
    assert len(tick(policy)) == MAX_WORKERS - 1


def test_shrinking_is_asked_for_once_and_what_is_retired_is_not_replaced() -> None:
    policy = running(4)
    policy.scale(2)
    assert tick(policy) == [Shrink(2)]
    assert tick(policy) == []
    policy.retiring(["w3", "w2"])
    policy.worker_exited("w3", 1.0)
    policy.worker_exited("w2", 1.0)
    assert tick(policy, 1.0) == []


def test_busy_workers_have_their_turn_later() -> None:
    policy = running(4)
    policy.scale(2)
    tick(policy)
    policy.retiring(["w3"])  # the others have ranks
    assert tick(policy) == [Shrink(1)]


def test_a_worker_that_could_not_be_retired_counts_again() -> None:
    policy = running(2)
    policy.scale(1)
    tick(policy)
    policy.retiring(["w1"])
    policy.kept(["w1"])
    assert tick(policy) == [Shrink(1)]


def test_a_worker_without_a_process_is_just_forgotten() -> None:
    policy = running(2)
    for now in (1.0, 2.0):
        policy.worker_exited("w1", now)
    policy.scale(1)
    assert tick(policy, 2.0) == []
    assert tick(policy, 100.0) == []


def test_growing_again_while_one_retires_takes_a_new_name() -> None:
    policy = running(2)
    policy.scale(1)
    tick(policy)
    policy.retiring(["w1"])
    policy.scale(2)
    assert tick(policy) == [StartWorker("w2")]


def test_nobody_needs_it_ends_it_after_the_time_out() -> None:
    policy = listening(idle_timeout_s=100.0)
    tick(policy)
    assert policy.wait_s(40.0) == 60.0
    assert tick(policy, 99.9) == []
    assert tick(policy, 100.0) == [End("nobody needs it")]


def test_the_time_out_counts_from_when_it_can_be_used() -> None:
    policy = listening(workers=1, idle_timeout_s=10.0)
    tick(policy)
    policy.heard(status(), 5.0)
    policy.heard(status("w0"), 9.0)
    assert tick(policy, 18.9) == []
    assert tick(policy, 19.0) == [End("nobody needs it")]


def test_a_client_a_run_or_a_task_keeps_it() -> None:
    for kept in (status(clients=1), status(runs=1), status(busy=True)):
        policy = listening(idle_timeout_s=100.0)
        tick(policy)
        policy.heard(kept, 50.0)
        assert policy.wait_s(50.0) is None
        assert tick(policy, 5000.0) == []
        policy.heard(status(), 6000.0)
        assert tick(policy, 6099.0) == []
        assert tick(policy, 6100.0) == [End("nobody needs it")]


def test_a_superseded_one_goes_as_soon_as_it_may() -> None:
    policy = running(1, idle_timeout_s=1800.0)
    policy.superseded()
    assert tick(policy, 1000.0) == []  # a kernel still uses it
    policy.heard(status("w0"), 1000.0)
    assert tick(policy, 1002.0) == [End("nobody needs it")]


def test_without_its_scheduler_it_ends() -> None:
    policy = running()
    policy.scheduler_exited()
    (end,) = tick(policy)
    assert isinstance(end, End)
    assert end.is_failure


def test_the_first_reason_to_end_stays() -> None:
    policy = running()
    policy.stop("asked to")
    policy.scheduler_exited()
    assert tick(policy) == [End("asked to")]


def test_a_cluster_whose_workers_have_not_come_yet_is_not_idle() -> None:
    policy = listening(workers=2, idle_timeout_s=0.5)
    assert tick(policy, 50.0) == [StartWorker("w0"), StartWorker("w1")]
    assert policy.wait_s(50.0) == 10.0
    assert tick(policy, 60.0) == [End("nobody needs it")]
