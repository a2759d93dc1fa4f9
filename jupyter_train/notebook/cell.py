"""What ``%%train`` does with its cell: check, start, show, wait, bring the names in. Kernel's main thread.

A function call goes the same way, from any thread.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NoReturn

from jupyter_train.notebook.api import own_run
from jupyter_train.notebook.bundle import as_bundle, plain
from jupyter_train.notebook.failure import quiet
from jupyter_train.notebook.leaving import goes_on, tell_at_the_end
from jupyter_train.notebook.live import LiveView
from jupyter_train.notebook.output import RankOutput
from jupyter_train.notebook.returning import Brought
from jupyter_train.notebook.run import Run
from jupyter_train.notebook.screen import DisplayScreen, Screen, TextScreen
from jupyter_train.notebook.session import current_session
from jupyter_train.notebook.source import StoreSource
from jupyter_train.notebook.stage import new_stage
from jupyter_train.notebook.submit import Work, abandon, hand_in, prepare
from jupyter_train.notebook.wait import Interrupts, in_background, wait_for
from jupyter_train.notebook.words import reference
from jupyter_train.store import Store

if TYPE_CHECKING:
    from jupyter_train.notebook.options import TrainOptions
    from jupyter_train.notebook.session import Session

FIRST_LINE = 2  # the magic stands on the first, unless another one is above it


def run_cell(source: str, options: TrainOptions, session: Session) -> None:
    """Trains with ``source``; returns when the run has ended, or with ``--bg`` at once.

    Raises:
        SyntaxError, CellError: before anything starts.
        ClusterError, CaptureError: nothing was started.
        KeyboardInterrupt: the run was interrupted.
        Exception: what the cell raised on the ranks.
    """
    work = Work(
        source=source,
        first_line=first_line(session, source),
        namespace=session.namespace,
        name=session.default_name,
    )
    conduct(work, options, session)


def conduct(work: Work, options: TrainOptions, session: Session) -> Run:
    """Starts a run of ``work`` and shows it; returns it when it has ended well, in the background at once.

    Raises:
        ClusterError, CaptureError: nothing was started.
        KeyboardInterrupt: the run was interrupted.
        Exception: what was raised on the ranks.
    """
    screen = new_screen(session)
    with _told_while_a_cluster_starts(screen):
        prepared = prepare(work, options, session)
    interrupts = Interrupts()
    with ExitStack() as stack:
        try:
            hand_in(prepared)
            # From here on nothing is raised for an interrupt: the run must not be forgotten.
            stack.enter_context(interrupts)
        except KeyboardInterrupt as error:
            abandon(prepared)
            raise quiet(error, ["KeyboardInterrupt: the run had not started yet and was ended"]) from None
        run = own_run(prepared, session, cell_label(session))
        live = show(
            run,
            screen,
            remarks=prepared.remarks,
            meanwhile=_in_the_background(run, work) if options.bg else "",
            output=RankOutput(
                _ref(run), stage=new_stage(session), clears=work.call is None and session.has_front_end
            ),
        )
        if options.bg:
            _hand_over(run, live, interrupts)
            return run
        ended = wait_for(
            run.follow().done,
            interrupts,
            lambda count: _interrupt(run, live, force=count > 1),
            kernel_ends=lambda: session.is_ending,
        )
    if not ended:
        run.follow().stop()
        if session.is_ending:
            _leave(run, live)
    brought = run.bring_in(waited=True) if ended else Brought()
    live.conclude(brought.remarks)
    failure = run.outcome(brought, interrupts=interrupts.count)
    if failure is not None:
        raise failure from None
    return run


def new_screen(session: Session) -> Screen:
    """What the current cell can show something on."""
    return DisplayScreen() if session.has_front_end else TextScreen(sys.stdout.write)


@contextmanager
def _told_while_a_cluster_starts(screen: Screen) -> Iterator[None]:
    """The first cell of the day waits some seconds: it says what for."""
    from jupyter_train import cluster

    current = cluster.current()
    if current is not None and current.is_alive:
        yield
        return
    screen.show(
        as_bundle("connecting to a cluster; a local one is started where there is none, and stays"),
        final=False,
    )
    try:
        yield
    except BaseException:
        screen.show(as_bundle("nothing was started"), final=True)
        raise


def show(
    run: Run,
    screen: Screen,
    *,
    remarks: Iterable[str] = (),
    meanwhile: str = "",
    output: RankOutput | None = None,
) -> LiveView:
    """The live view of ``run`` on ``screen``, kept up to date by a thread."""
    live = LiveView(screen, run.name, output=output, remarks=remarks, meanwhile=meanwhile)
    live.show(run.known)
    run.follow(live)
    run.shown_by.append(live)
    tell_at_the_end(current_session())
    return live


def show_again(run: Run, screen: Screen) -> LiveView:
    """The live view of a ``run`` that began before: its whole history at once, then what comes."""
    live = LiveView(screen, run.name, at_once=True)
    live.show(run.known)
    run.follow(live, history=StoreSource(Store(), run.id))
    run.shown_by.append(live)
    tell_at_the_end(current_session())
    return live


def first_line(session: Session, source: str) -> int:
    """The line of the present cell on which ``source`` starts: below ``%%time`` and ``%%train`` it is the third."""
    history = session.shell.history_manager if session.shell is not None else None
    if history is None or not history.input_hist_raw:
        return FIRST_LINE
    # Without the empty lines at its top, as the shell counts in every cell.
    cell = history.input_hist_raw[-1].strip("\n").splitlines()
    lines = source.strip("\n").splitlines()
    blank = len(source) - len(source.lstrip("\n"))
    start = len(cell) - len(lines) - blank
    return start + 1 if start > 0 and lines and cell[start + blank :] == lines else FIRST_LINE


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
    named = session.shell.compile.format_code_name(cell_file(session)) if session.shell is not None else None
    return " ".join(named) if named else ""


def _interrupt(run: Run, live: LiveView, *, force: bool) -> None:
    live.note("ending its processes" if force else "stopping after this step; ■ again ends its processes")
    run.follow().hurry()
    in_background(
        lambda: run.interrupt(force=force),
        failed=lambda error: live.note(f"could not be stopped: {plain(str(error), 200)}"),
    )


def _leave(run: Run, live: LiveView) -> NoReturn:
    """The kernel goes, the run stays: what is left in the notebook says so."""
    live.conclude([goes_on(run)])
    raise quiet(KeyboardInterrupt(), [f"KeyboardInterrupt: run {plain(run.name, 80)} {goes_on(run)}"])


def _hand_over(run: Run, live: LiveView, interrupts: Interrupts) -> None:
    """With ``--bg``: what was interrupted in the moment of starting is stopped, as any cell would be."""
    if interrupts.count:
        _interrupt(run, live, force=False)
        raise quiet(KeyboardInterrupt(), [f"KeyboardInterrupt: run {plain(run.name, 80)} was told to stop"])


def _in_the_background(run: Run, work: Work) -> str:
    if work.call is None:
        return f"in the background: %train wait {_ref(run)} brings its names in"
    return "in the background: its .value waits for it"


def _ref(run: Run) -> str:
    """How to name ``run`` on a magic's line."""
    return reference(run.name, run.id)
