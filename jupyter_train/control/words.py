"""What the controller says of ranks that cannot speak for themselves any more."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from jupyter_train.control.messages import ExitCause
from jupyter_train.control.placement import Place
from jupyter_train.record import ResumePoint


def exit_sentence(rank: int, cause: ExitCause) -> str:
    """Why the process of ``rank`` is gone, when it did not say so itself."""
    if cause.kind == "error":
        return f"rank {rank} failed and its error was lost" + (f": {cause.text}" if cause.text else "")
    if cause.kind == "lost":
        return f"rank {rank} is lost: {cause.text}"
    if cause.kind != "signal":
        return (
            f"the process of rank {rank} left with exit code {cause.code} before its cell had ended, "
            "as by os._exit: nothing that it had bound comes back"
        )
    try:
        name = signal.Signals(cause.signal).name
    except ValueError:
        name = f"signal {cause.signal}"
    hint = _HINTS.get(name, "")
    if name == "SIGKILL" and cause.out_of_memory is not None:
        hint = _OUT_OF_MEMORY if cause.out_of_memory else _SOMEBODY
    return f"the process of rank {rank} was killed by {name}{hint}"


_HINTS = {
    "SIGKILL": ", as Linux does when memory runs out",
    "SIGSEGV": ", a segmentation fault: native code touched memory that is not its own",
    "SIGBUS": ", as when shared memory (/dev/shm) or a disk is full",
    "SIGABRT": ": native code gave up; its log says why",
    "SIGFPE": ": native code divided by zero",
    "SIGILL": ": native code was built for another processor",
}
_OUT_OF_MEMORY = ": out of memory, and Linux ended the largest process"
_SOMEBODY = ", by itself or by another process: Linux did not do it for want of memory"


def exit_cause(rank: int, cause: ExitCause) -> str:
    """The same in a few words, for a sentence that goes on."""
    if cause.kind == "lost":
        return f"rank {rank} was lost ({cause.text})" if cause.text else f"rank {rank} was lost"
    if cause.kind != "signal":
        return f"rank {rank} left with exit code {cause.code}"
    if cause.out_of_memory:
        return f"rank {rank} was killed: out of memory"
    return f"rank {rank} was killed by signal {cause.signal}"


def lost_sentence(place: Place) -> str:
    """A worker left the cluster in the middle of a run."""
    return (
        f"rank {place.rank} is lost, because worker {place.name} on {place.host} ({place.worker}) left the cluster: "
        "it was killed or closed, or its machine went away"
    )


def lost_cause(place: Place) -> str:
    """The same in a few words, for a sentence that goes on."""
    return f"worker {place.name} on {place.host} was lost, and rank {place.rank} with it"


def host_sentence(host: str, ranks: Sequence[int]) -> str:
    """No worker of a host is left in the cluster."""
    which = "rank" if len(ranks) == 1 else "ranks"
    return f"host {host} was lost, and {which} {', '.join(map(str, sorted(ranks)))} with it"


def hung_sentence(place: Place, text: str) -> str:
    """A rank that the others waited for did nothing any more."""
    found = f": {text}" if text else ""
    return f"rank {place.rank} on worker {place.name} ({place.host}) hung while others waited for it{found}"


def next_sentence(
    cause: str, *, attempt: int, attempts: int, resume: ResumePoint | None, run_id: str, keeps: bool
) -> str:
    """Why an attempt ended, and what the next one, number ``attempt`` of at most ``attempts``, begins with.

    ``keeps``: the cell keeps checkpoints, as far as can be seen.
    """
    which = f"{cause}; attempt {attempt} of {attempts}"
    if resume is None and keeps:
        return f"{which} starts over: no checkpoint of a loop over train.epochs was on disk yet"
    if resume is None:
        return f"{which} starts over: the cell keeps no checkpoint (train.epochs, train.checkpoint)"
    if resume.run_id != run_id:
        return f"{which} begins again from {place_in(resume)} of run {resume.run_id}"
    return f"{which} goes on from {place_in(resume)}"


def place_in(point: ResumePoint) -> str:
    """Where in a run a checkpoint was taken."""
    if point.epoch is None:
        return f"step {point.step}"
    batch = f", batch {point.batch}" if point.batch else ""
    return f"step {point.step} (epoch {point.epoch}{batch})"


def last_sentence(reason: str, attempts: int) -> str:
    """Why a run failed that had attempts enough."""
    return f"{reason}; attempt {attempts} of {attempts} was the last"


def late_sentence(places: Sequence[Place], after_s: float) -> str:
    """Ranks that were launched, or were to be, and have not begun the cell."""
    ranks = ", ".join(f"rank {p.rank} on worker {p.name} ({p.host})" for p in places)
    have = "has" if len(places) == 1 else "have"
    return f"{ranks} {have} not begun the cell {after_s:g} s after the start"


def closing_sentence(place: Place) -> str:
    """A worker closed in the middle of a run, and took its rank with it."""
    return (
        f"rank {place.rank} was stopped by worker {place.name} on {place.host} ({place.worker}), which closes"
    )


def timeout_sentence(timeout_s: float) -> str:
    """The time given by --timeout is over."""
    return f"the run took longer than the {timeout_s:g} s that --timeout allows"


def vain_sentence(times: int, reason: str) -> str:
    """A cell was started over and over, for loops that were not to be split any more."""
    return f"the cell was started over {times} times, and still: {reason}"


def set_back_sentence(host: str, seconds: float) -> str:
    """The clock of the controller's machine was set back while a run went on."""
    hours, minutes = int(seconds // 3600), seconds % 3600 / 60
    told = (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{hours} h {minutes:.0f} min"
        if hours
        else f"{minutes:.0f} min"
    )
    return (
        f"the clock of {host} was set back by {told}: the run's own times go on as if it had not been, "
        "what its ranks tell from now on has the new time, and nothing is lost"
    )
