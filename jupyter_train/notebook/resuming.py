"""From ``--resume RUN[@STEP]`` to the checkpoint that a new run begins from. Kernel's main thread; the choice is pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jupyter_train import home
from jupyter_train.errors import RunError
from jupyter_train.notebook.bundle import plain
from jupyter_train.notebook.words import Resume, reference
from jupyter_train.record import Checkpoint, ResumePoint, RunState, RunView

if TYPE_CHECKING:
    from jupyter_train.notebook.session import Session

_STEPS_NAMED = 6


def resume_from(wanted: Resume, session: Session) -> tuple[ResumePoint, tuple[str, ...]]:
    """The checkpoint that is meant, and what there is to say about it.

    Raises:
        RunNotFound: there is no such run.
        RunError: it has no such checkpoint.
    """
    from jupyter_train.notebook.api import find

    run = find(wanted.run, session)
    view = run.view
    found = chosen(view, wanted, name=plain(run.name, 80))
    goes_on = view.state is not None and not (view.state.is_terminal or view.state is RunState.LOST)
    where = reference(run.name, run.id)
    remarks = (
        (f"run {where}, from which this one goes on, has not ended itself: %train stop {where} ends it",)
        if goes_on
        else ()
    )
    return found.resume_point(run.id), remarks


def chosen(view: RunView, wanted: Resume, *, name: str) -> Checkpoint:
    """The checkpoint of ``view`` that ``wanted`` means: the newest, or the newest of its step.

    Raises:
        RunError: there is none; says which there are.
    """
    kept = [one for one in view.checkpoints if one.says_where]
    if view.checkpoints and not kept:
        raise RunError(
            f"the checkpoints of run {name} ({view.run_id}) were made outside of a loop over  train.epochs(n),  so nothing "
            f'says where a cell would go on. What they hold:  jt.run("{view.run_id}").checkpoints[-1].load()'
        )
    if not kept:
        raise RunError(
            f"run {name} ({view.run_id}) has no checkpoint to resume from. A cell keeps some with  "
            "train.checkpoint(model=model)  or, where it loops over  train.epochs(n),  by  --checkpoint-every 30s."
        )
    if wanted.step is None:
        return kept[-1]
    of_step = [one for one in kept if one.step == wanted.step]
    if of_step:
        return of_step[-1]
    nearest = min(kept, key=lambda one: abs(one.step - (wanted.step or 0))).step
    raise RunError(
        f"run {name} has no checkpoint of step {wanted.step}; the nearest is  --resume {wanted.run}@{nearest}.  "
        f"It has {_steps(kept)}."
    )


def other_ranks(point: ResumePoint, ranks: int) -> tuple[str, ...]:
    """What there is to say where another number of ranks goes on from ``point``."""
    wrote = len(point.files)
    if wrote == ranks:
        return ()
    said = (
        f"the checkpoint was written by {wrote} rank{'s' * (wrote != 1)}, and this run has {ranks}: it goes on from the "
        "same weights and the same batch, but not with the same random numbers"
    )
    return (said,)


def check_files(point: ResumePoint) -> None:
    """Whether the files of ``point`` lie on this disk, which its ranks will share.

    Raises:
        RunError: one of them does not.
    """
    folder = home.run_folder(point.run_id)
    lacks = [file for file in dict.fromkeys(point.files) if not (folder / file).exists()]
    if lacks:
        raise RunError(
            f"the checkpoint of step {point.step} of run {point.run_id} cannot be resumed from: {lacks[0]} is not in "
            f"{folder}. It was removed, or lies where that run's workers kept their files."
        )


def _steps(kept: Sequence[Checkpoint]) -> str:
    steps = sorted({one.step for one in kept})
    shown = ", ".join(map(str, steps[-_STEPS_NAMED:]))
    return f"{'step' if len(steps) == 1 else 'steps'} {'…, ' if len(steps) > _STEPS_NAMED else ''}{shown}"
