"""The machine of a run as tests drive it."""

from __future__ import annotations

from jupyter_train.control.machine import RunMachine
from jupyter_train.control.messages import (
    Announce,
    Command,
    ExitCause,
    Input,
    Launched,
    Placed,
    Queued,
    RankErred,
    RankExited,
    RankReady,
    Report,
    StopRanks,
)
from jupyter_train.control.placement import Place, Seat, choose
from jupyter_train.record import ResumePoint, RunState, WholeLoop

DONE = ExitCause(kind="done")
ERROR = ExitCause(kind="error")
STOPPED = ExitCause(kind="stopped")
KILLED = ExitCause(kind="signal", signal=9)
LOOP = WholeLoop(line=4, why="line 6: the loss compares samples")
AGAIN = ExitCause(kind="again", text=LOOP.why, whole=(LOOP,))
TOLD = ExitCause(kind="again", text="another rank starts over")


def places(ranks: int) -> tuple[Place, ...]:
    chosen = choose(ranks, [Seat(worker=f"w{i}", name=str(i), host="h") for i in range(ranks)])
    assert chosen is not None
    return chosen


class Life:
    """A machine and all that it has asked for."""

    def __init__(
        self,
        ranks: int = 2,
        *,
        timeout_s: float | None = None,
        retries: int = 0,
        resume: ResumePoint | None = None,
    ) -> None:
        self.machine = RunMachine(
            run_id="r", ranks=ranks, timeout_s=timeout_s, retries=retries, resume=resume
        )
        self.commands: list[Command] = []
        self.ranks = ranks

    def __call__(self, *inputs: Input) -> list[Command]:
        new = [c for given_input in inputs for c in self.machine.handle(given_input)]
        self.commands.extend(new)
        return new

    def pending(self) -> Life:
        self(Queued(queue_place=0))
        return self

    def starting(self) -> Life:
        self.pending()(Placed(places=places(self.ranks)))
        return self

    def running(self) -> Life:
        self.starting()
        for rank in range(self.ranks):
            self(Launched(attempt=1, worker=f"w{rank}"), RankReady(attempt=1, rank=rank))
        return self

    def exits(self, rank: int, cause: ExitCause = DONE) -> list[Command]:
        return self(RankExited(attempt=self.machine.attempt, rank=rank, cause=cause))

    def placed_again(self) -> list[Command]:
        """All of the attempt is gone and the run has its workers again."""
        return self(Placed(places=places(self.ranks)))

    def errs(self, rank: int, *, secondary: bool = False) -> list[Command]:
        return self(
            RankErred(attempt=1, rank=rank, type="ValueError", message=f"bad {rank}", secondary=secondary)
        )

    @property
    def states(self) -> list[RunState]:
        return [c.state for c in self.commands if isinstance(c, Announce)]

    @property
    def end(self) -> tuple[RunState | None, str]:
        assert self.machine.is_over
        assert self.machine.verdict is not None
        return self.machine.state, self.machine.verdict.reason


def stops(commands: list[Command]) -> list[tuple[str, tuple[str, ...]]]:
    return [(c.mode, c.workers) for c in commands if isinstance(c, StopRanks)]


def reports(commands: list[Command]) -> list[tuple[int | None, str, str]]:
    return [(c.rank, c.type, c.cause) for c in commands if isinstance(c, Report)]
