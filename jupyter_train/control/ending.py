"""How a run and its attempts end: what decides, who is told, and what follows once all ranks are gone."""

from __future__ import annotations

from collections.abc import Iterator

from jupyter_train.control.again import Course
from jupyter_train.control.attempt import Attempt
from jupyter_train.control.messages import (
    Abandon,
    Announce,
    Command,
    ExitCause,
    Free,
    Mode,
    PlaceAgain,
    Remark,
    Report,
    SetTimer,
    StopRanks,
    Timer,
)
from jupyter_train.control.placement import Place
from jupyter_train.control.verdict import Verdict
from jupyter_train.control.words import last_sentence, next_sentence, vain_sentence
from jupyter_train.record import ResumePoint, RunState, WholeLoop, legal_move

# The agents keep the real deadlines: after a stop a cell has 4 s, after a failure elsewhere 0.7 s, and then
# its rank 60 s or 5 s to write what comes back. These here are for agents that do not answer, so they
# are longer than any of those.
STOP_NET_S = 70.0
FAIL_NET_S = 8.0
UNWIND_NET_S = 70.0
KILL_NET_S = 5.0


class Ending:
    """The half of a run's machine that ends things; the other half tells it why."""

    def __init__(
        self,
        *,
        run_id: str,
        ranks: int,
        timeout_s: float | None = None,
        retries: int = 0,
        whole: tuple[WholeLoop, ...] = (),
        resume: ResumePoint | None = None,
        keeps: bool = False,
    ) -> None:
        self.run_id = run_id
        self.ranks = ranks
        self.timeout_s = timeout_s
        self.state: RunState | None = None
        self.attempt = 0  #: 0 until it is placed; the first is 1
        self.verdict: Verdict | None = None
        self.course = Course(
            run_id=run_id, ranks=ranks, retries=retries, whole=whole, resume=resume, keeps=keeps
        )
        self._now = Attempt()
        self._waits_for: tuple[int, str] = (0, "")  #: place in the queue, and why
        self._why = ""  #: while RETRYING
        self._has_clock = False  #: of --timeout: it counts over all attempts

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the ranks of this attempt are; none while it waits for workers."""
        return self._now.places

    @property
    def is_over(self) -> bool:
        """It has ended; nothing that comes in changes that."""
        return self.state is not None and self.state.is_terminal

    @property
    def is_ending(self) -> bool:
        """It has ended, or waits for its ranks to be gone."""
        return self.is_over or self.verdict is not None

    # What decides

    def _fail(self, reason: str) -> Iterator[Command]:
        """Something went wrong that would go wrong again."""
        yield from self._decide(Verdict(state=RunState.FAILED, reason=reason))

    def _lose(
        self, reason: str, loss: str, *, is_secondary: bool = False, place: Place | None = None
    ) -> Iterator[Command]:
        """A rank is lost, for which the cell cannot be blamed: another attempt follows while retries are left."""
        if self.course.can_retry:
            verdict = Verdict(
                state=RunState.RETRYING, reason=reason, loss=loss, is_secondary=is_secondary, place=place
            )
        else:
            if self.course.retries > 0:
                reason = last_sentence(reason, self.course.attempts)
            verdict = Verdict(state=RunState.FAILED, reason=reason, is_secondary=is_secondary, place=place)
        yield from self._decide(verdict)

    def _decide(self, verdict: Verdict) -> Iterator[Command]:
        """The first cause decides; a consequence does until a cause is known."""
        if self.verdict is None:
            self.verdict = verdict
            yield from self._order("fail")
        elif self.verdict.is_secondary and not verdict.is_secondary:
            self.verdict = verdict

    def _give_up(self, cause: ExitCause) -> Iterator[Command]:
        """A rank found that the attempt must be started over; the others need not go on."""
        self._now.found.extend(cause.whole)
        verdict = self.verdict
        if verdict is None or verdict.is_secondary:
            yield from self._decide(Verdict(state=RunState.RETRYING, reason=cause.text))
        elif not verdict.ends_the_run and cause.whole:
            # Who has found it says it better than who was told.
            self.verdict = Verdict(state=RunState.RETRYING, reason=cause.text)

    def _order(self, mode: Mode) -> Iterator[Command]:
        """Tell the ranks that still live."""
        if self._now.mode == mode:
            return
        self._now.mode = mode
        alive = self._now.alive()
        yield from self._tell(mode, alive)
        if alive or self._now.reading:
            after_s = {"stop": STOP_NET_S, "fail": FAIL_NET_S, "kill": KILL_NET_S}[mode]
            yield SetTimer(timer=Timer.KILL, after_s=after_s)

    def _tell(self, mode: Mode, ranks: list[int]) -> Iterator[Command]:
        if told := self._now.workers_of(mode, ranks):
            yield StopRanks(attempt=self.attempt, workers=told, mode=mode)

    def _end_if_all_are_gone(self) -> Iterator[Command]:
        if self.is_over or not self._now.is_gone:
            return
        if self.verdict is None:
            self.verdict = Verdict(state=RunState.SUCCEEDED, reason="")
        yield from self._conclude(self.verdict, [])

    def _conclude(self, verdict: Verdict, abandoned: list[int]) -> Iterator[Command]:
        """The ranks are gone: the run ends, or another attempt begins."""
        if verdict.ends_the_run:
            yield from self._finish(verdict, abandoned)
        elif verdict.loss and not self._now.found:
            self.course = self.course.after_unread() if verdict.is_unread else self.course.after_loss()
            reason = next_sentence(
                verdict.loss,
                attempt=self.attempt + 1,
                attempts=self.course.attempts,
                resume=self.course.begin,
                run_id=self.run_id,
                keeps=self.course.keeps,
            )
            yield Remark(text=f"attempt {self.attempt}: {reason}")
            yield from self._retry(reason, abandoned)
        elif (course := self.course.starting_over(self._now.found)) is not None:
            self.course = course
            yield from self._retry(verdict.reason, abandoned, whole=course.whole)
        else:
            message = vain_sentence(self.course.started_over, verdict.reason)
            yield Report(rank=None, type="RunFailed", message=message, cause="exception")
            yield from self._finish(Verdict(state=RunState.FAILED, reason=f"RunFailed: {message}"), abandoned)

    def _finish(self, verdict: Verdict, abandoned: list[int] | None = None) -> Iterator[Command]:
        self.verdict = verdict
        yield self._move(verdict.state, verdict.reason)
        freed, left = self._now.freed(abandoned or [])
        if freed:
            yield Free(workers=freed)
        if left:
            yield Abandon(attempt=self.attempt, workers=left)

    def _retry(
        self, reason: str, abandoned: list[int], *, whole: tuple[WholeLoop, ...] = ()
    ) -> Iterator[Command]:
        """Another attempt. Where this one was placed it mostly is again."""
        yield self._move(RunState.RETRYING, reason, whole=whole, resume=self.course.begin)
        freed, left = self._now.freed(abandoned)
        if left:
            yield Abandon(attempt=self.attempt, workers=left)
        self._now, self.verdict, self._why, self._waits_for = Attempt(), None, reason, (0, "")
        yield PlaceAgain(workers=freed)  # the last: it is placed before this returns

    # Facts

    @property
    def _is_open_for_a_cause(self) -> bool:
        """No cause of the end is known yet."""
        return self.verdict is None or self.verdict.is_secondary

    @property
    def _is_to_go_on(self) -> bool:
        """Nothing is known that ends the run."""
        return self.verdict is None or not self.verdict.ends_the_run

    def _move(
        self,
        state: RunState,
        reason: str = "",
        *,
        places: tuple[Place, ...] = (),
        queue_place: int = 0,
        whole: tuple[WholeLoop, ...] = (),
        resume: ResumePoint | None = None,
    ) -> Announce:
        assert legal_move(self.state, state), f"{self.state} → {state}"
        self.state = state
        return Announce(
            state=state, reason=reason, places=places, queue_place=queue_place, whole=whole, resume=resume
        )
