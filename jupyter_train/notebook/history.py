"""What a view says of attempts, checkpoints and the queue, in words. Pure.

Texts are as they were recorded: whoever shows them frees them of what is not text.
"""

from __future__ import annotations

import re
import time

from jupyter_train.record import Checkpoint, ResumePoint, RunState, RunView

_ATTEMPTS_SHOWN = 3
_NUMBERED = re.compile(r"attempt (\d+): ")


def place_in_queue(view: RunView) -> str:
    """``place 2 in the queue``, while the run waits for workers and does not say it by its reason."""
    waits = view.state in (RunState.PENDING, RunState.RETRYING) and "in the queue" not in view.reason
    return f"place {view.queue_place} in the queue" if waits and view.queue_place > 0 else ""


def which_attempt(view: RunView) -> str:
    """``attempt 2``, where there was one before."""
    return f"attempt {view.attempt}" if view.attempt > 1 else ""


def past_attempts(view: RunView) -> list[str]:
    """What became of each earlier attempt of a run with retries; where they are many, of the newest."""
    if view.spec is None or not view.spec.retries:
        return []  # an attempt that was started over says so in a remark
    # Of a run that waits for its next attempt, the headline says what became of the newest.
    over = view.past[:-1] if view.state is RunState.RETRYING else view.past
    said = [f"attempt {past.attempt}: {past.reason}" for past in over]
    if len(said) <= _ATTEMPTS_SHOWN:
        return said
    return [
        f"{len(said) - _ATTEMPTS_SHOWN} attempts before these were given up too",
        *said[-_ATTEMPTS_SHOWN:],
    ]


def remarks(view: RunView) -> list[str]:
    """The remarks, less those that :func:`past_attempts` says already."""
    told = {past.attempt for past in view.past} if past_attempts(view) else set()
    return [text for text in view.remarks if not ((found := _NUMBERED.match(text)) and int(found[1]) in told)]


def where_it_began(view: RunView) -> str:
    """Which checkpoint of another run the curves go on from; "" where they begin at the start."""
    point = view.spec.resume if view.spec is not None else None
    if point is None:
        return ""
    started_over = any(past.resume is None for past in view.past)
    return "" if started_over else f"resumed from {position(point)} of run {point.run_id}"


def checkpoints_kept(view: RunView) -> str:
    """``2 kept, the newest at step 430 (epoch 2)``; "" where there is none."""
    kept = view.checkpoints
    return f"{len(kept)} kept, the newest at {position(kept[-1])}" if kept else ""


def position(of: Checkpoint | ResumePoint) -> str:
    """``step 430 (epoch 2, batch 7)``."""
    if of.epoch is None:
        return f"step {of.step}"
    return f"step {of.step} (epoch {of.epoch}{f', batch {of.batch}' if of.batch else ''})"


def as_of(view: RunView, now: float) -> str:
    """When this was said, of a run that goes on: the view may stay in a saved notebook for years."""
    if view.state is not None and (view.state.is_terminal or view.state is RunState.LOST):
        return ""
    return time.strftime("as of %Y-%m-%d %H:%M:%S", time.localtime(now))
