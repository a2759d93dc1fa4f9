"""What holds for the machine of a run whatever comes, in whatever order."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from jupyter_train.control.again import MOST_ATTEMPTS
from jupyter_train.control.messages import (
    Abandon,
    CheckpointKept,
    ExitCause,
    Free,
    Input,
    KillDeadline,
    Launch,
    Launched,
    LaunchFailed,
    PlaceAgain,
    Placed,
    Queued,
    RankErred,
    RankExited,
    RankHung,
    RankReady,
    SetTimer,
    SpoolRead,
    StacksDeadline,
    StacksTaken,
    StartDeadline,
    StopRequested,
    TakeStacks,
    TimeoutReached,
    Timer,
    WorkerLost,
)
from jupyter_train.record import CheckpointPart, RunState, WholeLoop, legal_move
from tests.control.life import LOOP, Life, places

attempts = st.integers(0, 3)
ranks = st.integers(0, 3)
workers = ranks.map(lambda n: f"w{n}")
causes = st.builds(
    ExitCause,
    kind=st.sampled_from(["done", "error", "again", "stopped", "signal", "exit", "lost", "odd"]),
    whole=st.sampled_from([(), (LOOP,), (WholeLoop(line=9),)]),
)


def _told(attempt: int, of: int, rank: int, number: int, dropped: bool) -> CheckpointKept:
    file = f"checkpoint-{of}-{number}.{rank}.pt"
    part = CheckpointPart(
        number=number, step=number, epoch=0, file=file, size_bytes=1, worker="w", dropped=dropped
    )
    return CheckpointKept(attempt=attempt, rank=rank, part=part)


inputs: st.SearchStrategy[Input] = st.one_of(
    st.builds(Queued, queue_place=st.integers(0, 3)),
    st.builds(Placed, places=st.just(places(3))),
    st.builds(Launched, attempt=attempts, worker=workers),
    st.builds(LaunchFailed, attempt=attempts, worker=workers, type=st.just("E"), message=st.just("m")),
    st.builds(RankReady, attempt=attempts, rank=ranks),
    st.builds(
        RankErred,
        attempt=attempts,
        rank=ranks,
        type=st.sampled_from(["E", "CheckpointUnreadable"]),
        message=st.just("m"),
        secondary=st.booleans(),
    ),
    st.builds(RankExited, attempt=attempts, rank=ranks, cause=causes),
    st.builds(RankHung, attempt=attempts, rank=ranks, text=st.just("")),
    st.builds(StacksTaken, attempt=attempts, rank=ranks),
    st.builds(_told, attempts, attempts, ranks, st.integers(1, 3), st.booleans()),
    st.builds(WorkerLost, worker=workers, is_host_lost=st.booleans()),
    st.builds(SpoolRead, worker=workers),
    st.builds(StopRequested, force=st.booleans()),
    st.just(TimeoutReached()),
    st.just(StartDeadline()),
    st.just(StacksDeadline()),
    st.just(KillDeadline()),
)
RETRIES = 3
Start = Callable[[Life], Life]
starts = st.sampled_from([Life.pending, Life.starting, Life.running])
retries = st.sampled_from([0, 1, RETRIES])


@given(starts, retries, st.lists(inputs, max_size=40))
def test_moves_are_legal_and_the_end_comes_at_most_once(
    start: Start, retries: int, given_inputs: list[Input]
) -> None:
    life = start(Life(3, timeout_s=5, retries=retries))
    life(*given_inputs)
    states: list[RunState | None] = [None, *life.states]
    assert all(legal_move(a, b) for a, b in zip(states, life.states, strict=False) if b is not None)
    assert sum(s.is_terminal for s in life.states) <= 1
    held: set[str] = set()
    for command in life.commands:
        if isinstance(command, Launch):
            held |= {place.worker for place in command.places}
        elif isinstance(command, (Free, Abandon, PlaceAgain)):
            assert held >= set(command.workers), "a worker is freed once for each launch"
            held -= set(command.workers)
    assert not (held and life.machine.is_over), "no worker is held by a run that is over"
    launches = [c.attempt for c in life.commands if isinstance(c, Launch)]
    assert launches == list(range(1, len(launches) + 1))
    assert len(launches) <= MOST_ATTEMPTS + retries + 2 * (retries + MOST_ATTEMPTS)


@given(starts, retries, st.lists(inputs, max_size=30))
def test_whoever_is_told_to_stop_ends_even_if_nobody_answers(
    start: Start, retries: int, given_inputs: list[Input]
) -> None:
    life = start(Life(3, retries=retries))
    life(*given_inputs, StopRequested(force=True))
    for _ in range(5):
        life(KillDeadline())
    assert life.machine.is_over


@given(starts, retries, st.lists(inputs, max_size=30))
def test_as_long_as_an_ending_run_waits_a_timer_runs(
    start: Start, retries: int, given_inputs: list[Input]
) -> None:
    life = start(Life(3, retries=retries))
    is_set = False
    for one in given_inputs:
        if isinstance(one, KillDeadline) and not is_set:
            continue
        new = life(one)
        is_set = (is_set and not isinstance(one, KillDeadline)) or any(
            isinstance(c, SetTimer) and c.timer is Timer.KILL for c in new
        )
        if life.machine.is_ending and not life.machine.is_over:
            assert is_set


@given(st.permutations(range(3)), st.lists(causes, min_size=3, max_size=3))
def test_once_all_ranks_are_gone_the_run_is_over(order: list[int], ends: list[ExitCause]) -> None:
    life = Life(3).running()
    for rank, cause in zip(order, ends, strict=True):
        assert not life.machine.is_over
        life.exits(rank, cause)
    first = next((c.kind for c in ends if c.kind not in ("done", "stopped")), "done")
    if first == "again":
        assert life.machine.state is RunState.RETRYING
        return
    assert life.machine.is_over
    assert (life.machine.state is RunState.SUCCEEDED) == all(c.kind == "done" for c in ends)


@given(starts, retries, st.lists(inputs, max_size=30))
def test_while_a_run_starts_a_timer_runs(start: Start, retries: int, given_inputs: list[Input]) -> None:
    life = start(Life(3, retries=retries))
    life(*given_inputs)
    for _ in range(2):
        life(StartDeadline())
    for _ in range(5):
        life(KillDeadline())
    assert life.machine.state is not RunState.STARTING


@given(retries, st.lists(inputs, max_size=30))
def test_whoever_hangs_is_ended_even_if_nobody_takes_its_stacks(
    retries: int, given_inputs: list[Input]
) -> None:
    life = Life(3, retries=retries).running()
    is_set = False
    for one in given_inputs:
        if isinstance(one, StacksDeadline) and not is_set:
            continue
        new = life(one)
        is_set = (is_set and not isinstance(one, StacksDeadline)) or any(
            isinstance(c, SetTimer) and c.timer is Timer.STACKS for c in new
        )
        assert is_set or not any(isinstance(c, TakeStacks) for c in new)


@st.composite
def stories(draw: st.DrawFn) -> list[Input]:
    """Attempts that write checkpoints, all ranks or some, and are lost."""
    story: list[Input] = [Queued(queue_place=0)]
    for attempt in range(1, 5):
        story.append(Placed(places=places(3)))
        told = st.builds(
            _told,
            st.integers(1, attempt),
            st.integers(1, attempt),
            st.integers(0, 2),
            st.integers(1, 3),
            st.sampled_from([False, False, False, True]),
        )
        story += draw(st.lists(told, max_size=12))
        order = draw(st.permutations(range(3)))
        kinds = draw(st.lists(st.sampled_from(["signal", "stopped", "again"]), min_size=3, max_size=3))
        story += [
            RankExited(
                attempt=attempt,
                rank=rank,
                cause=ExitCause(kind=kind, whole=(WholeLoop(line=attempt),) if kind == "again" else ()),
            )
            for rank, kind in zip(order, kinds, strict=True)
        ]
    return story


@given(st.one_of(stories(), st.lists(inputs, max_size=60)))
def test_an_attempt_goes_on_only_from_a_checkpoint_that_every_rank_has_written(story: list[Input]) -> None:
    life = Life(3, retries=RETRIES)
    there: dict[tuple[int, int], set[int]] = {}  #: attempt and number → ranks whose file is there
    over = 0  #: the newest attempt that was given up for what it found
    for one in story:
        is_live = life.machine.state in (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)
        if (
            isinstance(one, CheckpointKept)
            and is_live
            and one.attempt == life.machine.attempt
            and one.rank < 3
        ):
            key = one.part.attempt, one.part.number
            if one.part.dropped:
                there.setdefault(key, set()).discard(one.rank)
            elif one.part.attempt == one.attempt:
                there.setdefault(key, set()).add(one.rank)
        known = len(life.machine.course.whole)
        for command in life(one):
            if isinstance(command, Launch) and (point := command.resume) is not None:
                assert there[point.attempt, point.number] == {0, 1, 2}
                assert over < point.attempt < command.attempt
                complete = [k for k, ranks in there.items() if len(ranks) == 3 and over < k[0]]
                assert (point.attempt, point.number) == max(complete)
        if len(life.machine.course.whole) > known:
            over = life.machine.attempt if not life.machine.is_over else over
