"""The kernel goes, its runs stay: the views that it leaves in the notebook say so. At the interpreter's end.

A kernel that is killed says nothing any more; that is why a view of a run that
goes on always says as of when it is.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

from jupyter_train.notebook.words import reference

if TYPE_CHECKING:
    from jupyter_train.notebook.run import Run
    from jupyter_train.notebook.session import Session

_registered: list[object] = []


def goes_on(run: Run) -> str:
    """What is left to say of a run that its kernel leaves behind."""
    ref = reference(run.name, run.id)
    return f"goes on without this kernel: %train attach {ref} shows it, %train stop {ref} ends it"


def tell_at_the_end(session: Session) -> None:
    """Have the views of ``session`` say at the kernel's end that their runs go on. Twice does nothing.

    ipykernel closes its sockets in a function of the same kind, which it has
    registered before: the last comes first.
    """
    if session.has_front_end and not _registered:
        _registered.append(atexit.register(leave_behind, session))


def leave_behind(session: Session) -> None:
    """See :func:`tell_at_the_end`."""
    for run in list(session.runs.values()):
        if run.is_followed:
            run.follow().stop()
            for live in run.shown_by:
                live.conclude([goes_on(run)])
