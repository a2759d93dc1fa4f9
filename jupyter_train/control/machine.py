"""The life of one run, decided: inputs come in, commands go out, nothing else happens here.

The table of states, inputs and commands is in docs/states.md. Two promises
hold whatever comes in and in whatever order: a run that has to end ends (its
last resort is a timer), and it ends exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from jupyter_train.control.again import to_be_whole
from jupyter_train.control.messages import (
    Abandon,
    Announce,
    Command,
    ExitCause,
    Free,
    Input,
    KillDeadline,
    Launch,
    Launched,
    LaunchFailed,
    Mode,
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
from jupyter_train.control.placement import Place
from jupyter_train.control.words import (
    closing_sentence,
    exit_sentence,
    late_sentence,
    lost_sentence,
    timeout_sentence,
    vain_sentence,
)
from jupyter_train.record import RunState, WholeLoop, legal_move

# The agents keep the real deadlines: after a stop a cell has 4 s, after a failure elsewhere 0.7 s, and then
# its rank 60 s or 5 s to write what comes back. These here are for agents that do not answer, so they
# are longer than any of those.
STOP_NET_S = 70.0
FAIL_NET_S = 8.0
UNWIND_NET_S = 70.0
KILL_NET_S = 5.0
#: A rank that hangs before its cell begins is told by nobody. Cold imports of what was captured can take minutes.
START_REMARK_S = 30.0
START_FAIL_S = 600.0
START_NET_S = 1.0  #: a launch that waits for a cold zygote holds up nobody who has stopped it


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the run, or with RETRYING its attempt, will end once its ranks are gone."""

    state: RunState
    reason: str
    is_secondary: bool = False  #: only a consequence is known so far: the cause may still come


class RunMachine:
    """The state machine of one run. Not thread-safe: it belongs to the scheduler's event loop."""

    def __init__(
        self,
        *,
        run_id: str,
        ranks: int,
        timeout_s: float | None = None,
        whole: tuple[WholeLoop, ...] = (),
    ) -> None:
        self.run_id = run_id
        self.ranks = ranks
        self.timeout_s = timeout_s
        self.state: RunState | None = None
        self.attempt = 0  #: 0 until it is placed; the first is 1
        self.whole = whole  #: loops that are known not to be splittable
        self.places: tuple[Place, ...] = ()
        self.verdict: Verdict | None = None
        self._queued: tuple[int, str] = (0, "")
        self._has_clock = False  #: of --timeout: it counts over all attempts
        self._found: list[WholeLoop] = []  #: by this attempt
        self._is_late = False  #: it was said that its start takes long
        self._mode: Mode | None = None  #: what the ranks were told last
        self._ready: set[int] = set()
        self._erred: set[int] = set()
        self._gone: set[int] = set()
        self._reading: dict[str, int] = {}  #: lost worker → its rank, whose spool is being read

    @property
    def is_over(self) -> bool:
        """It has ended; nothing that comes in changes that."""
        return self.state is not None and self.state.is_terminal

    @property
    def is_ending(self) -> bool:
        """It has ended, or waits for its ranks to be gone."""
        return self.is_over or self.verdict is not None

    def handle(self, given: Input) -> list[Command]:
        """Take in what happened; what to do about it, in order."""
        if self.is_over:
            return list(self._late(given))
        if self.state is None and not isinstance(given, Queued):
            return []
        rule: Callable[..., Iterator[Command]] = _RULES[type(given)]
        commands = list(rule(self, given))
        commands.extend(self._end_if_all_are_gone())
        return commands

    # Before there are ranks

    def _on_queued(self, given: Queued) -> Iterator[Command]:
        where = (given.queue_place, given.reason)
        if self.state is None or (self.state is RunState.PENDING and where != self._queued):
            self._queued = where
            yield self._move(RunState.PENDING, given.reason, queue_place=given.queue_place)

    def _on_placed(self, given: Placed) -> Iterator[Command]:
        if self.state not in (RunState.PENDING, RunState.RETRYING):
            return
        self.attempt += 1
        self.places = given.places
        yield self._move(RunState.STARTING, places=given.places)
        yield Launch(attempt=self.attempt, places=given.places, whole=self.whole)
        yield SetTimer(timer=Timer.START, after_s=START_REMARK_S)

    # While ranks start and run

    def _on_launched(self, given: Launched) -> Iterator[Command]:
        """A launch and an order to end can cross on their way: the order is repeated once the rank is there."""
        if given.attempt == self.attempt and self._mode is not None:
            yield from self._tell(self._mode, self._alive(given.worker))

    def _on_launch_failed(self, given: LaunchFailed) -> Iterator[Command]:
        ranks = self._alive(given.worker) if given.attempt == self.attempt else []
        for rank in ranks:
            self._gone.add(rank)
            if self.verdict is None:
                yield Report(rank=rank, type=given.type, message=given.message, cause="launch")
            yield from self._fail(f"{given.type}: {given.message}")

    def _on_rank_ready(self, given: RankReady) -> Iterator[Command]:
        if not self._is_mine(given):
            return
        self._ready.add(given.rank)
        if len(self._ready) == self.ranks and self.state is RunState.STARTING and self.verdict is None:
            yield self._move(RunState.RUNNING)
            if self.timeout_s is not None and not self._has_clock:
                self._has_clock = True
                yield SetTimer(timer=Timer.TIMEOUT, after_s=self.timeout_s)

    def _on_start_deadline(self, given: StartDeadline) -> Iterator[Command]:
        """Say which ranks have not begun; later give up on them."""
        late = [self.places[r] for r in self._alive() if r not in self._ready]
        if self.state is not RunState.STARTING or self.verdict is not None or not late:
            return
        if not self._is_late:
            self._is_late = True
            yield Remark(
                text=f"{late_sentence(late, START_REMARK_S)}; the run fails after {START_FAIL_S:g} s"
            )
            yield SetTimer(timer=Timer.START, after_s=START_FAIL_S - START_REMARK_S)
            return
        message = late_sentence(late, START_FAIL_S)
        yield Report(rank=late[0].rank, type="RankLost", message=message, cause="lost")
        yield from self._fail(f"RankLost: {message}")

    def _on_rank_erred(self, given: RankErred) -> Iterator[Command]:
        if self._is_mine(given):
            self._erred.add(given.rank)
            yield from self._fail(f"{given.type}: {given.message}", is_secondary=given.secondary)

    def _on_rank_exited(self, given: RankExited) -> Iterator[Command]:
        """One rank's process ended.

        The first failure ends the attempt: the other ranks would wait in a
        collective until their timeout, so they are ended at once.
        """
        if not self._is_mine(given) or given.rank in self._gone:
            return
        self._gone.add(given.rank)
        cause = given.cause
        if cause.kind == "done":
            yield from self._on_rank_ready(RankReady(attempt=given.attempt, rank=given.rank))
        elif cause.kind == "again":
            yield from self._give_up(cause)
        elif cause.kind == "stopped":
            # Nobody here asked for it: an agent ends its ranks by itself only together with its worker.
            message = closing_sentence(self.places[given.rank])
            if self.verdict is None:
                yield Report(rank=given.rank, type="RankLost", message=message, cause="lost")
            yield from self._fail(f"RankLost: {message}", is_secondary=True)
        elif given.rank not in self._erred and self._is_open_for_a_cause:
            # Not by our own order, which comes after a verdict: nobody else will tell why.
            message = exit_sentence(given.rank, cause)
            yield Report(rank=given.rank, type="RankLost", message=message, cause=cause.kind, text=cause.text)
            yield from self._fail(f"RankLost: {message}")

    def _on_worker_lost(self, given: WorkerLost) -> Iterator[Command]:
        place = next((p for p in self.places if p.worker == given.worker), None)
        if place is None or place.rank in self._gone or given.worker in self._reading:
            return
        self._reading[place.worker] = place.rank
        yield ReadSpool(attempt=self.attempt, worker=place.worker, host=place.host, rank=place.rank)
        if self._is_open_for_a_cause:
            message = lost_sentence(place)
            yield Report(rank=place.rank, type="RankLost", message=message, cause="lost")
            yield from self._fail(f"RankLost: {message}")

    def _on_spool_read(self, given: SpoolRead) -> Iterator[Command]:
        rank = self._reading.pop(given.worker, None)
        if rank is not None:
            self._gone.add(rank)
        yield from ()

    # Ending

    def _on_stop_requested(self, given: StopRequested) -> Iterator[Command]:
        reason = given.reason or "stopped"
        if self.state in (RunState.PENDING, RunState.RETRYING):
            yield from self._finish(Verdict(state=RunState.CANCELLED, reason=reason))
        elif self._is_to_go_on:
            has_begun = self.state is RunState.RUNNING and self.verdict is None
            self.verdict = Verdict(state=RunState.CANCELLED, reason=reason)
            yield self._move(RunState.STOPPING, reason)
            yield from self._order("stop" if has_begun and not given.force else "kill")
            if not has_begun:
                yield SetTimer(timer=Timer.KILL, after_s=START_NET_S)
        elif given.force or self.state is RunState.STOPPING:
            yield from self._order("kill")

    def _on_timeout(self, given: TimeoutReached) -> Iterator[Command]:
        has_begun = self.state in (RunState.RUNNING, RunState.RETRYING) or self.attempt > 1
        if not has_begun or self.state is RunState.STOPPING or not self._is_to_go_on:
            return
        message = timeout_sentence(self.timeout_s or 0.0)
        verdict = Verdict(state=RunState.FAILED, reason=f"RunTimeout: {message}")
        report = Report(rank=None, type="RunTimeout", message=message, cause="timeout")
        if self.state is RunState.RETRYING:
            yield report
            yield from self._finish(verdict)
            return
        is_in_the_cell = self.state is RunState.RUNNING and self.verdict is None
        self.verdict = verdict
        yield self._move(RunState.STOPPING, verdict.reason)
        yield report
        yield from self._order("stop" if is_in_the_cell else "kill")

    def _on_kill_deadline(self, given: KillDeadline) -> Iterator[Command]:
        """An agent has not done what it was told: tell it to kill, then go on without it."""
        if self.verdict is None:
            return
        self._gone.update(self._reading.values())
        self._reading.clear()
        late = [r for r in self._alive() if self._mode != "fail" or r not in self._erred]
        if self._mode == "kill":
            self._gone.update(late)
            yield from self._conclude(self.verdict, abandoned=late)
        elif late:
            yield from self._order("kill")
        elif self._alive():
            self._mode = "stop"  # only ranks that pack their result are left: they have a longer time
            yield SetTimer(timer=Timer.KILL, after_s=UNWIND_NET_S)

    def _fail(self, reason: str, *, is_secondary: bool = False) -> Iterator[Command]:
        if self.verdict is not None:
            if self.verdict.is_secondary and not is_secondary:
                self.verdict = Verdict(state=RunState.FAILED, reason=reason)
            return
        self.verdict = Verdict(state=RunState.FAILED, reason=reason, is_secondary=is_secondary)
        yield from self._order("fail")

    def _give_up(self, cause: ExitCause) -> Iterator[Command]:
        """A rank found that the attempt must be started over; the others need not go on."""
        self._found.extend(cause.whole)
        if self._is_open_for_a_cause:
            self.verdict = Verdict(state=RunState.RETRYING, reason=cause.text)
            yield from self._order("fail")
        elif self.verdict is not None and self.verdict.state is RunState.RETRYING and cause.whole:
            # Who has found it says it better than who was told.
            self.verdict = replace(self.verdict, reason=cause.text)

    def _order(self, mode: Mode) -> Iterator[Command]:
        """Tell the ranks that still live; a rank that failed by itself is on its way, and only a kill is for it."""
        if self._mode == mode:
            return
        self._mode = mode
        yield from self._tell(mode, self._alive())
        if self._alive() or self._reading:
            after_s = {"stop": STOP_NET_S, "fail": FAIL_NET_S, "kill": KILL_NET_S}[mode]
            yield SetTimer(timer=Timer.KILL, after_s=after_s)

    def _tell(self, mode: Mode, ranks: list[int]) -> Iterator[Command]:
        told = tuple(self.places[r].worker for r in ranks if mode == "kill" or r not in self._erred)
        if told:
            yield StopRanks(attempt=self.attempt, workers=told, mode=mode)

    def _end_if_all_are_gone(self) -> Iterator[Command]:
        if self.is_over or not self.places or len(self._gone) < self.ranks:
            return
        if self.verdict is None:
            self.verdict = Verdict(state=RunState.SUCCEEDED, reason="")
        yield from self._conclude(self.verdict)

    def _conclude(self, verdict: Verdict, abandoned: list[int] | None = None) -> Iterator[Command]:
        """The ranks are gone: the run ends, or another attempt begins."""
        if verdict.state is RunState.RETRYING:
            whole = to_be_whole(self.whole, self._found, self.attempt)
            if whole is not None:
                yield from self._retry(verdict.reason, whole, abandoned)
                return
            message = vain_sentence(self.attempt, verdict.reason)
            yield Report(rank=None, type="RunFailed", message=message, cause="exception")
            verdict = Verdict(state=RunState.FAILED, reason=f"RunFailed: {message}")
        yield from self._finish(verdict, abandoned)

    def _finish(self, verdict: Verdict, abandoned: list[int] | None = None) -> Iterator[Command]:
        self.verdict = verdict
        yield self._move(verdict.state, verdict.reason)
        freed, left = self._workers(abandoned)
        if freed:
            yield Free(workers=freed)
        if left:
            yield Abandon(attempt=self.attempt, workers=left)

    def _retry(
        self, reason: str, whole: tuple[WholeLoop, ...], abandoned: list[int] | None
    ) -> Iterator[Command]:
        """Everything from the start, but for what is known by now. Where it was placed it mostly is again."""
        self.whole = whole
        yield self._move(RunState.RETRYING, reason, whole=whole)
        freed, left = self._workers(abandoned)
        if left:
            yield Abandon(attempt=self.attempt, workers=left)
        self.places, self.verdict, self._mode, self._is_late = (), None, None, False
        self._found = []
        for ranks in (self._ready, self._erred, self._gone):
            ranks.clear()
        yield PlaceAgain(workers=freed)  # the last: it is placed before this returns

    def _workers(self, abandoned: list[int] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Workers that are free now, and those of ``abandoned`` ranks."""
        left = tuple(self.places[r].worker for r in abandoned or ())
        return tuple(p.worker for p in self.places if p.worker not in left), left

    def _late(self, given: Input) -> Iterator[Command]:
        """What still matters after the end: a launch that was under way."""
        if isinstance(given, Launched) and given.attempt == self.attempt:
            yield StopRanks(attempt=given.attempt, workers=(given.worker,), mode="kill")

    # Facts

    @property
    def _is_open_for_a_cause(self) -> bool:
        """No cause of the end is known yet."""
        return self.verdict is None or self.verdict.is_secondary

    @property
    def _is_to_go_on(self) -> bool:
        """Nothing is known that ends the run."""
        return self.verdict is None or self.verdict.state is RunState.RETRYING

    def _is_mine(self, given: RankReady | RankErred | RankExited) -> bool:
        return given.attempt == self.attempt and 0 <= given.rank < len(self.places)

    def _alive(self, worker: str | None = None) -> list[int]:
        """Ranks whose process may still be there, those of lost workers left out."""
        return [
            p.rank
            for p in self.places
            if p.rank not in self._gone and p.worker not in self._reading and worker in (None, p.worker)
        ]

    def _move(
        self,
        state: RunState,
        reason: str = "",
        *,
        places: tuple[Place, ...] = (),
        queue_place: int = 0,
        whole: tuple[WholeLoop, ...] = (),
    ) -> Announce:
        assert legal_move(self.state, state), f"{self.state} → {state}"
        self.state = state
        return Announce(state=state, reason=reason, places=places, queue_place=queue_place, whole=whole)


_RULES: dict[type[Input], Callable[..., Iterator[Command]]] = {
    Queued: RunMachine._on_queued,
    Placed: RunMachine._on_placed,
    Launched: RunMachine._on_launched,
    LaunchFailed: RunMachine._on_launch_failed,
    RankReady: RunMachine._on_rank_ready,
    RankErred: RunMachine._on_rank_erred,
    RankExited: RunMachine._on_rank_exited,
    WorkerLost: RunMachine._on_worker_lost,
    SpoolRead: RunMachine._on_spool_read,
    StopRequested: RunMachine._on_stop_requested,
    TimeoutReached: RunMachine._on_timeout,
    StartDeadline: RunMachine._on_start_deadline,
    KillDeadline: RunMachine._on_kill_deadline,
}
