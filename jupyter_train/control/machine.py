"""The life of one run, decided: inputs come in, commands go out, nothing else happens here.

The table of states, inputs and commands is in docs/states.md. Two promises
hold whatever comes in and in whatever order: a run that has to end ends (its
last resort is a timer), and it ends exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jupyter_train.control.attempt import Attempt
from jupyter_train.control.ending import UNWIND_NET_S, Ending
from jupyter_train.control.messages import (
    CheckpointKept,
    Command,
    Input,
    KillDeadline,
    Launch,
    Launched,
    LaunchFailed,
    Placed,
    Queued,
    RankErred,
    RankExited,
    RankHung,
    RankReady,
    ReadSpool,
    Remark,
    Report,
    SetTimer,
    SpoolRead,
    StacksDeadline,
    StacksTaken,
    StartDeadline,
    StopRanks,
    StopRequested,
    TakeStacks,
    TimeoutReached,
    Timer,
    WorkerLost,
)
from jupyter_train.control.verdict import Verdict
from jupyter_train.control.words import (
    closing_sentence,
    exit_cause,
    exit_sentence,
    host_sentence,
    hung_sentence,
    late_sentence,
    lost_cause,
    lost_sentence,
    timeout_sentence,
)
from jupyter_train.errors import CheckpointUnreadable
from jupyter_train.record import RunState

#: A rank that hangs before its cell begins is told by nobody. Cold imports of what was captured can take minutes.
START_REMARK_S = 30.0
START_FAIL_S = 600.0
START_NET_S = 1.0  #: a launch that waits for a cold zygote holds up nobody who has stopped it
STACKS_S = 1.0  #: a rank that hangs is ended without its stacks if they cannot be had


class RunMachine(Ending):
    """The state machine of one run: a rule for each input. Not thread-safe: it belongs to the scheduler's event loop."""

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
        if self.state is None or (self.state is RunState.PENDING and where != self._waits_for):
            self._waits_for = where
            yield self._move(RunState.PENDING, given.reason, queue_place=given.queue_place)
        elif self.state is RunState.RETRYING and where != self._waits_for:
            self._waits_for = where
            reason = f"{self._why}; {given.reason}" if given.reason else self._why
            yield self._move(
                RunState.RETRYING, reason, queue_place=given.queue_place, resume=self.course.begin
            )

    def _on_placed(self, given: Placed) -> Iterator[Command]:
        if self.state not in (RunState.PENDING, RunState.RETRYING):
            return
        self.attempt += 1
        resume = self.course.begin
        self._now = Attempt(given.places, resume)
        yield self._move(RunState.STARTING, places=given.places)
        yield Launch(attempt=self.attempt, places=given.places, whole=self.course.whole, resume=resume)
        yield SetTimer(timer=Timer.START, after_s=START_REMARK_S)

    # While ranks start and run

    def _on_launched(self, given: Launched) -> Iterator[Command]:
        """A launch and an order to end can cross on their way: the order is repeated once the rank is there."""
        if given.attempt == self.attempt and self._now.mode is not None:
            yield from self._tell(self._now.mode, self._now.alive(given.worker))

    def _on_launch_failed(self, given: LaunchFailed) -> Iterator[Command]:
        ranks = self._now.alive(given.worker) if given.attempt == self.attempt else []
        for rank in ranks:
            self._now.gone.add(rank)
            if self.verdict is None:
                yield Report(rank=rank, type=given.type, message=given.message, cause="launch")
            reason = f"{given.type}: {given.message}"
            yield from self._lose(reason, f"rank {rank} could not be launched ({reason})")

    def _on_rank_ready(self, given: RankReady) -> Iterator[Command]:
        if not self._is_mine(given):
            return
        self._now.ready.add(given.rank)
        if self._now.has_begun and self.state is RunState.STARTING and self.verdict is None:
            yield self._move(RunState.RUNNING)
            if self.timeout_s is not None and not self._has_clock:
                self._has_clock = True
                yield SetTimer(timer=Timer.TIMEOUT, after_s=self.timeout_s)

    def _on_start_deadline(self, given: StartDeadline) -> Iterator[Command]:
        """Say which ranks have not begun; later give up on them."""
        late = [self._now.places[r] for r in self._now.alive() if r not in self._now.ready]
        if self.state is not RunState.STARTING or self.verdict is not None or not late:
            return
        if not self._now.is_late:
            self._now.is_late = True
            # What follows the time-out is said when it comes: there may be retries.
            yield Remark(
                text=f"{late_sentence(late, START_REMARK_S)}; the attempt ends after {START_FAIL_S:g} s"
            )
            yield SetTimer(timer=Timer.START, after_s=START_FAIL_S - START_REMARK_S)
            return
        message = late_sentence(late, START_FAIL_S)
        yield Report(rank=late[0].rank, type="RankLost", message=message, cause="lost")
        yield from self._lose(f"RankLost: {message}", message)

    def _on_checkpoint_kept(self, given: CheckpointKept) -> Iterator[Command]:
        """Of an attempt that was given up nothing counts any more that is told late."""
        if self._is_mine(given):
            self.course = self.course.with_part(given.attempt, given.rank, given.part)
        yield from ()

    # Ranks that fail and are lost

    def _on_rank_erred(self, given: RankErred) -> Iterator[Command]:
        if not self._is_mine(given):
            return
        self._now.erred.add(given.rank)
        reason = f"{given.type}: {given.message}"
        if given.secondary:
            # Should nobody tell the cause, then ranks lost each other, and that is a loss like others.
            yield from self._lose(reason, f"rank {given.rank} ended with {reason}", is_secondary=True)
        elif given.type == CheckpointUnreadable.__name__ and self._goes_on:
            # As where the host is gone that has the file. Another run's, which somebody asked for, is an error.
            loss = f"rank {given.rank} could not read the checkpoint ({given.message})"
            verdict = Verdict(state=RunState.RETRYING, reason=reason, loss=loss, is_unread=True)
            yield from self._decide(verdict)
        else:
            yield from self._fail(reason)

    def _on_rank_exited(self, given: RankExited) -> Iterator[Command]:
        """One rank's process ended.

        The first failure ends the attempt: the other ranks would wait in a
        collective until their timeout, so they are ended at once.
        """
        if not self._is_mine(given) or given.rank in self._now.gone:
            return
        rank, cause = given.rank, given.cause
        self._now.gone.add(rank)
        if cause.kind == "done":
            yield from self._on_rank_ready(RankReady(attempt=given.attempt, rank=rank))
        elif cause.kind == "again":
            yield from self._give_up(cause)
        elif cause.kind == "stopped":
            # Nobody here asked for it: an agent ends its ranks by itself only together with its worker.
            message = closing_sentence(self._now.places[rank])
            if self.verdict is None:
                yield Report(rank=rank, type="RankLost", message=message, cause="lost")
            yield from self._lose(f"RankLost: {message}", message, is_secondary=True)
        elif rank not in self._now.erred and self._is_open_for_a_cause:
            # Not by our own order, which comes after a verdict: nobody else will tell why.
            message = exit_sentence(rank, cause)
            yield Report(rank=rank, type="RankLost", message=message, cause=cause.kind, text=cause.text)
            if cause.kind == "error":  # of the cell: it would come again
                yield from self._fail(f"RankLost: {message}")
            else:
                yield from self._lose(f"RankLost: {message}", exit_cause(rank, cause))

    def _on_worker_lost(self, given: WorkerLost) -> Iterator[Command]:
        now = self._now
        place = next((p for p in now.places if p.worker == given.worker), None)
        if place is None or place.rank in now.gone or given.worker in now.reading:
            return
        now.reading[place.worker] = place.rank
        now.lost.append(place.rank)
        yield ReadSpool(attempt=self.attempt, worker=place.worker, host=place.host, rank=place.rank)
        message, loss = lost_sentence(place), lost_cause(place)
        if given.is_host_lost:
            message = loss = host_sentence(
                place.host, [r for r in now.lost if now.places[r].host == place.host]
            )
        if self._is_open_for_a_cause:
            yield Report(rank=place.rank, type="RankLost", message=message, cause="lost")
            yield from self._lose(f"RankLost: {message}", loss, place=place)
        elif given.is_host_lost and self.verdict is not None:
            self.verdict = self.verdict.widened(place.host, message)

    def _on_spool_read(self, given: SpoolRead) -> Iterator[Command]:
        rank = self._now.reading.pop(given.worker, None)
        if rank is not None:
            self._now.gone.add(rank)
        yield from ()

    def _on_rank_hung(self, given: RankHung) -> Iterator[Command]:
        """It is ended once what it does is on record."""
        if not self._is_mine(given) or given.rank not in self._now.alive() or self.verdict is not None:
            return
        if self._now.hung is None:
            self._now.hung = given
            worker = self._now.places[given.rank].worker
            yield TakeStacks(attempt=self.attempt, worker=worker, rank=given.rank)
            yield SetTimer(timer=Timer.STACKS, after_s=STACKS_S)

    def _on_stacks_taken(self, given: StacksTaken) -> Iterator[Command]:
        hung = self._now.hung
        if hung is not None and self._is_mine(given) and given.rank == hung.rank:
            yield from self._end_of_hung(given.text)

    def _on_stacks_deadline(self, given: StacksDeadline) -> Iterator[Command]:
        yield from self._end_of_hung("")

    def _end_of_hung(self, stacks: str) -> Iterator[Command]:
        hung, self._now.hung = self._now.hung, None
        if hung is None or hung.rank not in self._now.alive() or not self._is_open_for_a_cause:
            return
        message = hung_sentence(self._now.places[hung.rank], hung.text)
        yield Report(rank=hung.rank, type="RankLost", message=message, cause="hung", text=stacks)
        yield from self._lose(f"RankLost: {message}", f"rank {hung.rank} hung")

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
        now = self._now
        if self.verdict is None:
            return
        now.gone.update(now.reading.values())
        now.reading.clear()
        late = [r for r in now.alive() if now.mode != "fail" or r not in now.erred]
        if now.mode == "kill":
            now.gone.update(late)
            yield from self._conclude(self.verdict, late)
        elif late:
            yield from self._order("kill")
        elif now.alive():
            now.mode = "stop"  # only ranks that pack their result are left: they have a longer time
            yield SetTimer(timer=Timer.KILL, after_s=UNWIND_NET_S)

    def _late(self, given: Input) -> Iterator[Command]:
        """What still matters after the end: a launch that was under way."""
        if isinstance(given, Launched) and given.attempt == self.attempt:
            yield StopRanks(attempt=given.attempt, workers=(given.worker,), mode="kill")

    # Facts

    @property
    def _goes_on(self) -> bool:
        """The attempt began from a checkpoint of this run."""
        return self._now.resume is not None and self._now.resume.run_id == self.run_id

    def _is_mine(
        self, given: RankReady | RankErred | RankExited | RankHung | StacksTaken | CheckpointKept
    ) -> bool:
        return given.attempt == self.attempt and self._now.has(given.rank)


_RULES: dict[type[Input], Callable[..., Iterator[Command]]] = {
    Queued: RunMachine._on_queued,
    Placed: RunMachine._on_placed,
    Launched: RunMachine._on_launched,
    LaunchFailed: RunMachine._on_launch_failed,
    RankReady: RunMachine._on_rank_ready,
    RankErred: RunMachine._on_rank_erred,
    RankExited: RunMachine._on_rank_exited,
    RankHung: RunMachine._on_rank_hung,
    StacksTaken: RunMachine._on_stacks_taken,
    CheckpointKept: RunMachine._on_checkpoint_kept,
    WorkerLost: RunMachine._on_worker_lost,
    SpoolRead: RunMachine._on_spool_read,
    StopRequested: RunMachine._on_stop_requested,
    TimeoutReached: RunMachine._on_timeout,
    StartDeadline: RunMachine._on_start_deadline,
    StacksDeadline: RunMachine._on_stacks_deadline,
    KillDeadline: RunMachine._on_kill_deadline,
}
