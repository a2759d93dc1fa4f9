"""What ``%%train`` does with its cell: check, start, show, wait, bring the names in. Kernel's main thread."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING

from jupyter_train.notebook.api import submitted_run
from jupyter_train.notebook.bundle import plain
from jupyter_train.notebook.live import DisplayScreen, LiveView, Screen, TextScreen
from jupyter_train.notebook.output import RankOutput
from jupyter_train.notebook.run import Brought, Run
from jupyter_train.notebook.submit import submit
from jupyter_train.notebook.wait import in_background, wait_interruptibly

if TYPE_CHECKING:
    from jupyter_train.notebook.options import TrainOptions
    from jupyter_train.notebook.session import Session

FIRST_LINE = 2  # the magic stands on the first


def run_cell(source: str, options: TrainOptions, session: Session) -> None:
    """Trains with ``source``; returns when the run has ended, or with ``--bg`` at once.

    Raises:
        SyntaxError, CellError: before anything starts.
        ClusterError, CaptureError: nothing was started.
        KeyboardInterrupt: the run was interrupted.
        Exception: what the cell raised on the ranks.
    """
    submitted = submit(source, options, session, first_line=FIRST_LINE)
    run = submitted_run(submitted, session, cell_label(session))
    remarks = list(submitted.remarks)
    if options.bg:
        remarks.append(f"in the background: %train wait {_ref(run)} brings its names in")
    live = show(run, session, remarks=remarks)
    if not options.bg:
        _wait(run, live)


def show(run: Run, session: Session, *, remarks: list[str], follow_output: bool = True) -> LiveView:
    """The live view of ``run`` under the current cell, kept up to date by a thread."""
    screen: Screen = DisplayScreen() if session.has_front_end else TextScreen(sys.stdout.write)
    output = RankOutput(_ref(run)) if follow_output else None
    live = LiveView(screen, run.name, output=output, remarks=remarks)
    live.show(run.known)
    run.follow(live)
    return live


def cell_file(session: Session) -> str:
    """The file name under which the shell knows the cell that runs now, so that errors name it as ever."""
    frame = inspect.currentframe()
    while frame is not None and session.shell is not None:
        if session.shell.compile.format_code_name(frame.f_code.co_filename):
            return frame.f_code.co_filename
        frame = frame.f_back
    return "<cell>"


def cell_label(session: Session) -> str:
    """``Cell In[3]``, as the shell calls the cell that runs now; empty where there is no shell."""
    count = getattr(session.shell, "execution_count", None)
    return f"Cell In[{count}]" if count is not None else ""


def _wait(run: Run, live: LiveView) -> None:
    follower = run.follow()
    interrupts = 0

    def interrupted(count: int) -> None:
        nonlocal interrupts
        interrupts = count
        if count > 2:
            return
        live.note(
            "stopping after this step; ■ again ends its processes" if count == 1 else "ending its processes"
        )
        in_background(
            lambda: run.interrupt(force=count > 1),
            failed=lambda error: live.note(f"could not be stopped: {plain(str(error), 200)}"),
        )

    count = wait_interruptibly(follower.done, interrupted)
    if count and not follower.done.is_set():
        follower.stop()
    brought = run.bring_in() if follower.done.is_set() else Brought()
    live.remark(brought.remarks)
    error = run.outcome(brought, interrupts=max(count, interrupts))
    if error is not None:
        raise error from None


def _ref(run: Run) -> str:
    """How to name ``run`` on a magic's line."""
    name = plain(run.name, 80)
    return f'"{name}"' if " " in name else name
