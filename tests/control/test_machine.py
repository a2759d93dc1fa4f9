"""The life of a run, as sentences. No cluster, no clock."""

from __future__ import annotations

from jupyter_train.control.again import EVERY_LOOP, MOST_ATTEMPTS, to_be_whole
from jupyter_train.control.ending import FAIL_NET_S, KILL_NET_S, STOP_NET_S, UNWIND_NET_S
from jupyter_train.control.machine import START_FAIL_S, START_NET_S, START_REMARK_S
from jupyter_train.control.messages import (
    Abandon,
    Announce,
    ExitCause,
    Free,
    KillDeadline,
    Launch,
    Launched,
    LaunchFailed,
    PlaceAgain,
    Placed,
    Queued,
    RankErred,
    RankExited,
    RankReady,
    ReadSpool,
    Remark,
    Report,
    SetTimer,
    SpoolRead,
    StartDeadline,
    StopRanks,
    StopRequested,
    TimeoutReached,
    Timer,
    WorkerLost,
)
from jupyter_train.record import RunState, WholeLoop
from tests.control.life import (
    AGAIN,
    ERROR,
    KILLED,
    LOOP,
    STOPPED,
    TOLD,
    Life,
    places,
    reports,
    stops,
)

# The ordinary way


def test_a_run_goes_its_way() -> None:
    life = Life().running()
    life.exits(1)
    assert life.machine.state is RunState.RUNNING
    last = life.exits(0)
    assert life.states == [RunState.PENDING, RunState.STARTING, RunState.RUNNING, RunState.SUCCEEDED]
    assert last[-1] == Free(workers=("w0", "w1")), "workers are free after the end is recorded"


def test_placement_launches_all_ranks_in_one_attempt() -> None:
    life = Life().pending()
    assert life(Placed(places=places(2))) == [
        Announce(state=RunState.STARTING, places=places(2)),
        Launch(attempt=1, places=places(2)),
        SetTimer(timer=Timer.START, after_s=START_REMARK_S),
    ]


def test_it_runs_once_the_last_rank_is_ready() -> None:
    life = Life().starting()
    assert not life(RankReady(attempt=1, rank=1))
    assert life(RankReady(attempt=1, rank=0)) == [Announce(state=RunState.RUNNING)]


def test_ranks_that_ended_before_the_news_of_their_start_have_run() -> None:
    life = Life().starting()
    life.exits(0)
    life.exits(1)
    assert life.states[2:] == [RunState.RUNNING, RunState.SUCCEEDED]


def test_a_new_place_in_the_queue_is_told_once() -> None:
    life = Life().pending()
    queued = Queued(queue_place=2, reason="needs 2 workers; number 2 in the queue")
    assert life(queued) == [Announce(state=RunState.PENDING, reason=queued.reason, queue_place=2)]
    assert not life(queued)


def test_news_of_another_attempt_is_no_news() -> None:
    life = Life().running()
    assert not life(RankExited(attempt=2, rank=0, cause=KILLED), RankReady(attempt=0, rank=0))
    assert not life(
        RankErred(attempt=2, rank=0, type="E", message="m"),
        LaunchFailed(attempt=2, worker="w0", type="E", message="m"),
    )


# Failures


def test_first_failed_rank_stops_the_others() -> None:
    life = Life(3).running()
    commands = life.errs(1)
    assert stops(commands) == [("fail", ("w0", "w2"))]
    assert life.machine.state is RunState.RUNNING, "it ends when its ranks are gone"


def test_the_end_comes_when_all_are_gone_and_names_the_first_failure() -> None:
    life = Life().running()
    life.errs(1)
    life.exits(1, ERROR)
    life.exits(0, STOPPED)
    assert life.end == (RunState.FAILED, "ValueError: bad 1")
    assert not reports(life.commands), "the rank has told its error itself"


def test_the_consequence_of_a_failure_is_never_its_reason() -> None:
    life = Life().running()
    life.errs(0, secondary=True)
    life.errs(1)
    life.exits(0, ERROR)
    life.exits(1, ERROR)
    assert life.end == (RunState.FAILED, "ValueError: bad 1")


def test_a_consequence_is_better_than_no_reason() -> None:
    life = Life().running()
    life.errs(0, secondary=True)
    life.exits(0, ERROR)
    life.exits(1, STOPPED)
    assert life.end == (RunState.FAILED, "ValueError: bad 0")


def test_a_killed_rank_is_named_with_its_signal() -> None:
    life = Life().running()
    commands = life.exits(1, KILLED)
    assert reports(commands) == [(1, "RankLost", "signal")]
    assert stops(commands) == [("fail", ("w0",))]
    life.exits(0, KILLED)
    assert len(reports(life.commands)) == 1, "rank 0 was killed by our own order"
    assert life.end[1].startswith("RankLost: the process of rank 1 was killed by SIGKILL")


def test_the_death_behind_a_consequence_becomes_the_reason() -> None:
    life = Life().running()
    life.errs(0, secondary=True)
    life.exits(1, KILLED)
    life.exits(0, ERROR)
    assert life.end[1].startswith("RankLost: the process of rank 1 was killed")


def test_a_rank_that_ends_with_its_closing_worker_names_it() -> None:
    life = Life(1).running()
    assert reports(life.exits(0, STOPPED)) == [(0, "RankLost", "lost")]
    assert life.end == (RunState.FAILED, "RankLost: rank 0 was stopped by worker 0 on h (w0), which closes")


def test_leaving_by_exit_is_a_failure_even_with_code_zero() -> None:
    life = Life(1).running()
    life.exits(0, ExitCause(kind="exit", code=0))
    state, reason = life.end
    assert state is RunState.FAILED
    assert reason.startswith(
        "RankLost: the process of rank 0 left with exit code 0 before its cell had ended"
    )


def test_a_failed_rank_has_time_to_pack_what_comes_back() -> None:
    life = Life().running()
    life.errs(0)
    life.exits(1, STOPPED)
    assert life(KillDeadline()) == [SetTimer(timer=Timer.KILL, after_s=UNWIND_NET_S)]
    life.exits(0, ERROR)
    assert life.end == (RunState.FAILED, "ValueError: bad 0")


def test_a_rank_that_fails_while_it_loads_ends_the_run_before_it_runs() -> None:
    life = Life().starting()
    life.errs(0)
    life.exits(0, ERROR)
    life.exits(1, STOPPED)
    assert life.states == [RunState.PENDING, RunState.STARTING, RunState.FAILED]


# Launches


def test_a_launch_that_fails_ends_the_others() -> None:
    life = Life().starting()
    life(Launched(attempt=1, worker="w1"))
    commands = life(LaunchFailed(attempt=1, worker="w0", type="OSError", message="no memory"))
    assert reports(commands) == [(0, "OSError", "launch")]
    assert stops(commands) == [("fail", ("w1",))]
    life.exits(1, STOPPED)
    assert life.end == (RunState.FAILED, "OSError: no memory")


def test_when_no_launch_succeeds_the_first_error_is_told_once() -> None:
    life = Life().starting()
    for worker in ("w0", "w1"):
        life(LaunchFailed(attempt=1, worker=worker, type="OSError", message="no port"))
    assert life.end == (RunState.FAILED, "OSError: no port")
    assert len(reports(life.commands)) == 1


def test_a_rank_launched_after_the_order_to_end_hears_it() -> None:
    life = Life().starting()
    life(LaunchFailed(attempt=1, worker="w0", type="OSError", message="no port"))
    assert stops(life(Launched(attempt=1, worker="w1"))) == [("fail", ("w1",))]


# Stops


def test_a_stop_is_gentle_first() -> None:
    life = Life().running()
    assert life(StopRequested(reason="interrupted")) == [
        Announce(state=RunState.STOPPING, reason="interrupted"),
        StopRanks(attempt=1, workers=("w0", "w1"), mode="stop"),
        SetTimer(timer=Timer.KILL, after_s=STOP_NET_S),
    ]
    life.exits(0, STOPPED)
    life.exits(1, STOPPED)
    assert life.end == (RunState.CANCELLED, "interrupted")


def test_a_second_stop_kills() -> None:
    life = Life().running()
    life(StopRequested())
    life.exits(0, STOPPED)
    assert stops(life(StopRequested())) == [("kill", ("w1",))]


def test_a_forced_stop_kills_at_once() -> None:
    life = Life().running()
    assert stops(life(StopRequested(force=True))) == [("kill", ("w0", "w1"))]


def test_a_stop_while_waiting_ends_at_once() -> None:
    life = Life().pending()
    life(StopRequested(reason="interrupted"))
    assert life.end == (RunState.CANCELLED, "interrupted")


def test_a_stop_while_starting_kills() -> None:
    life = Life().starting()
    life(Launched(attempt=1, worker="w0"))
    assert stops(life(StopRequested())) == [("kill", ("w0", "w1"))]
    assert life.commands[-1] == SetTimer(timer=Timer.KILL, after_s=START_NET_S)
    assert stops(life(Launched(attempt=1, worker="w1"))) == [("kill", ("w1",))]
    life.exits(0, KILLED)
    life.exits(1, KILLED)
    assert life.states == [RunState.PENDING, RunState.STARTING, RunState.STOPPING, RunState.CANCELLED]
    assert not reports(life.commands)


def test_what_goes_wrong_after_a_stop_does_not_make_it_a_failure() -> None:
    life = Life(3).running()
    life(StopRequested(reason="interrupted"))
    life.errs(0)
    life.exits(0, ERROR)
    life.exits(1, KILLED)
    life(WorkerLost(worker="w2"), SpoolRead(worker="w2"))
    assert life.end == (RunState.CANCELLED, "interrupted")
    assert not reports(life.commands)


def test_a_run_that_ends_in_the_same_moment_is_cancelled_all_the_same() -> None:
    life = Life(1).running()
    life(StopRequested(reason="interrupted"))
    life.exits(0)
    assert life.end == (RunState.CANCELLED, "interrupted")


def test_a_stop_does_not_hide_a_failure_that_came_before() -> None:
    life = Life().running()
    life.errs(0)
    assert not life(StopRequested())
    assert stops(life(StopRequested(force=True))) == [("kill", ("w0", "w1"))]
    life.exits(0, KILLED)
    life.exits(1, KILLED)
    assert life.end == (RunState.FAILED, "ValueError: bad 0")


# Time-outs


def test_the_time_counts_from_running() -> None:
    life = Life(1, timeout_s=7200).starting()
    assert life(RankReady(attempt=1, rank=0))[-1] == SetTimer(timer=Timer.TIMEOUT, after_s=7200)


def test_a_timeout_stops_like_a_stop_and_ends_failed() -> None:
    life = Life(timeout_s=2).running()
    commands = life(TimeoutReached())
    assert stops(commands) == [("stop", ("w0", "w1"))]
    assert reports(commands) == [(None, "RunTimeout", "timeout")]
    life.exits(0, STOPPED)
    life.exits(1, STOPPED)
    assert life.end == (RunState.FAILED, "RunTimeout: the run took longer than the 2 s that --timeout allows")


def test_a_stop_after_a_timeout_kills() -> None:
    life = Life(timeout_s=2).running()
    life(TimeoutReached())
    assert stops(life(StopRequested())) == [("kill", ("w0", "w1"))]


# Workers


def test_a_lost_worker_ends_the_run_and_its_last_events_are_read_first() -> None:
    life = Life().running()
    commands = life(WorkerLost(worker="w1"))
    assert commands[0] == ReadSpool(attempt=1, worker="w1", host="h", rank=1)
    assert reports(commands) == [(1, "RankLost", "lost")]
    assert stops(commands) == [("fail", ("w0",))]
    life.exits(0, STOPPED)
    assert not life.machine.is_over
    life(SpoolRead(worker="w1"))
    assert life.end[0] is RunState.FAILED
    assert life.end[1].startswith("RankLost: rank 1 is lost, because worker 1 on h (w1) left the cluster")


def test_a_worker_whose_rank_is_done_is_not_missed() -> None:
    life = Life().running()
    life.exits(1)
    assert not life(WorkerLost(worker="w1"))
    life.exits(0)
    assert life.end == (RunState.SUCCEEDED, "")


def test_a_stranger_is_not_missed() -> None:
    assert not Life().running()(WorkerLost(worker="w7"))


def test_a_launch_on_a_lost_worker_fails_once() -> None:
    life = Life().starting()
    life(
        WorkerLost(worker="w1"), LaunchFailed(attempt=1, worker="w1", type="CommClosedError", message="gone")
    )
    assert reports(life.commands) == [(1, "RankLost", "lost")]


# Agents that do not answer


def test_ranks_that_outlast_a_stop_are_killed_and_then_left_behind() -> None:
    life = Life().running()
    life(StopRequested())
    life.exits(0, STOPPED)
    assert life(KillDeadline()) == [
        StopRanks(attempt=1, workers=("w1",), mode="kill"),
        SetTimer(timer=Timer.KILL, after_s=KILL_NET_S),
    ]
    assert life(KillDeadline()) == [
        Announce(state=RunState.CANCELLED, reason="stopped"),
        Free(workers=("w0",)),
        Abandon(attempt=1, workers=("w1",)),
    ]


def test_a_failure_has_its_own_deadline() -> None:
    assert Life().running().errs(0)[-1] == SetTimer(timer=Timer.KILL, after_s=FAIL_NET_S)


def test_a_launch_that_answers_after_the_end_is_killed() -> None:
    life = Life(1).starting()
    life(StopRequested(), KillDeadline())
    assert life.machine.is_over
    assert stops(life(Launched(attempt=1, worker="w0"))) == [("kill", ("w0",))]


def test_a_spool_that_cannot_be_read_holds_nobody_up() -> None:
    life = Life(1).running()
    life(WorkerLost(worker="w0"), KillDeadline())
    assert life.machine.is_over


# Ranks that never begin


def test_a_run_whose_ranks_do_not_begin_says_so_and_then_fails() -> None:
    life = Life().starting()
    assert life.commands[-1] == SetTimer(timer=Timer.START, after_s=START_REMARK_S)
    life(Launched(attempt=1, worker="w0"), RankReady(attempt=1, rank=0), Launched(attempt=1, worker="w1"))
    remark, again = life(StartDeadline())
    assert isinstance(remark, Remark)
    assert remark.text.startswith("rank 1 on worker 1 (h) has not begun the cell 30 s after the start")
    assert again == SetTimer(timer=Timer.START, after_s=START_FAIL_S - START_REMARK_S)
    report, *rest = life(StartDeadline())
    assert isinstance(report, Report)
    assert (report.rank, report.type) == (1, "RankLost")
    assert stops(rest) == [("fail", ("w0", "w1"))]
    life(KillDeadline(), KillDeadline())
    assert life.machine.is_over


def test_a_run_that_has_begun_does_not_mind_the_deadline_of_its_start() -> None:
    assert Life().running()(StartDeadline()) == []
    life = Life().starting()
    life(StopRequested())
    assert life(StartDeadline()) == []


# An attempt is given up, and another begins


def test_an_attempt_that_is_given_up_is_followed_by_one_that_knows_why() -> None:
    life = Life().running()
    assert stops(life.exits(0, AGAIN)) == [("fail", ("w1",))]
    assert life.exits(1, TOLD) == [
        Announce(state=RunState.RETRYING, reason=LOOP.why, whole=(LOOP,)),
        PlaceAgain(workers=("w0", "w1")),
    ]
    assert life.placed_again()[:2] == [
        Announce(state=RunState.STARTING, places=places(2)),
        Launch(attempt=2, places=places(2), whole=(LOOP,)),
    ]
    life(RankReady(attempt=2, rank=0), RankReady(attempt=2, rank=1))
    life.exits(0)
    life.exits(1)
    assert life.end == (RunState.SUCCEEDED, "")


def test_what_several_ranks_and_attempts_find_adds_up() -> None:
    life = Life().running()
    life.exits(1, TOLD)
    other = WholeLoop(line=9, why="line 9: …")
    life.exits(0, AGAIN)
    life.placed_again()
    life.exits(0, ExitCause(kind="again", text="line 9: …", whole=(other,)))
    life.exits(1, ExitCause(kind="again", text="line 9: …", whole=(other,)))
    launch = life.placed_again()[1]
    assert isinstance(launch, Launch)
    assert (launch.attempt, launch.whole) == (3, (LOOP, other))
    reasons = [c.reason for c in life.commands if isinstance(c, Announce) and c.state is RunState.RETRYING]
    assert reasons == [LOOP.why, "line 9: …"], "who has found it says why"


def test_the_consequence_of_giving_up_is_no_failure() -> None:
    life = Life().running()
    life.errs(1, secondary=True)
    life.exits(1, ERROR)
    life.exits(0, AGAIN)
    assert life.machine.state is RunState.RETRYING


def test_a_failure_that_came_before_stands() -> None:
    life = Life().running()
    life.errs(1)
    life.exits(0, AGAIN)
    life.exits(1, ERROR)
    assert life.end == (RunState.FAILED, "ValueError: bad 1")


def test_a_stop_holds_whatever_an_attempt_wanted() -> None:
    for moment in (0, 1, 2):  # while its ranks end, while it waits for workers, while the next attempt starts
        life = Life().running()
        life.exits(0, AGAIN)
        if moment:
            life.exits(1, TOLD)
        if moment == 2:
            life.placed_again()
        life(StopRequested(reason="stopped by hand"))
        if moment != 1:
            assert life.machine.state is RunState.STOPPING
            life.exits(0, STOPPED)
            life.exits(1, STOPPED)
        assert life.end == (RunState.CANCELLED, "stopped by hand")


def test_the_time_counts_over_all_attempts() -> None:
    life = Life(timeout_s=5).running()
    life.exits(0, AGAIN)
    life.exits(1, TOLD)
    life.placed_again()
    new = life(RankReady(attempt=2, rank=0), RankReady(attempt=2, rank=1))
    assert new == [Announce(state=RunState.RUNNING)], "no second clock"
    life(TimeoutReached())
    life.exits(0, STOPPED)
    life.exits(1, STOPPED)
    assert life.end[0] is RunState.FAILED
    waiting = Life(timeout_s=5).running()
    waiting.exits(0, AGAIN)
    waiting.exits(1, TOLD)
    waiting(TimeoutReached())
    assert waiting.end[1].startswith("RunTimeout: ")


def test_late_news_of_an_attempt_that_was_given_up_are_no_news() -> None:
    life = Life().running()
    life.exits(0, AGAIN)
    life.exits(1, TOLD)
    life.placed_again()
    late = RankErred(attempt=1, rank=0, type="ValueError", message="late")
    assert life(late, RankExited(attempt=1, rank=1, cause=KILLED)) == []
    assert life.machine.state is RunState.STARTING


def test_a_worker_that_does_not_answer_is_left_behind() -> None:
    life = Life().running()
    life.exits(0, AGAIN)
    life(KillDeadline())
    assert life(KillDeadline())[1:] == [
        Abandon(attempt=1, workers=("w1",)),
        PlaceAgain(workers=("w0",)),
    ]


def test_starting_over_has_an_end() -> None:
    known: tuple[WholeLoop, ...] = ()
    for attempt in range(1, MOST_ATTEMPTS):
        known = to_be_whole(known, [WholeLoop(line=attempt)], attempt) or ()
    assert known[-1] == EVERY_LOOP
    assert to_be_whole(known, [LOOP], MOST_ATTEMPTS) is None
    assert to_be_whole((LOOP,), [], 2) == (LOOP, EVERY_LOOP), "nothing new was found"
    life = Life(1).running()
    for _ in range(3):
        life.exits(0, AGAIN)
        if not life.machine.is_over:
            life.placed_again()
    assert life.end[1].startswith("RunFailed: the cell was started over 2 times, and still: line 6")
