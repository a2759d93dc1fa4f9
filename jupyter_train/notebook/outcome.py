"""How a run's end is told to the code that waits for it: nothing, or an exception. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_train.errors import ClusterUnreachable, RunCancelled
from jupyter_train.notebook.bundle import plain, steps_done
from jupyter_train.notebook.failure import failed_run, quiet
from jupyter_train.record import RunState, RunView


def outcome(
    view: RunView,
    *,
    name: str,
    brought: int = 0,
    interrupts: int = 0,
    shipped: BaseException | None = None,
    namespace: Mapping[str, Any] | None = None,
    cell: str = "",
    gave_up: BaseException | None = None,
) -> BaseException | None:
    """The exception that ends the wait for the run, None where it succeeded.

    ``brought`` names are in the notebook by now; ``interrupts`` of ours were
    sent meanwhile: whatever came of them, the cell ends with KeyboardInterrupt,
    so that Run All stops there.
    """
    if view.state in (RunState.FAILED, RunState.LOST):
        return failed_run(view, name=name, shipped=shipped, namespace=namespace, cell=cell)
    if interrupts:
        return quiet(KeyboardInterrupt(), [f"KeyboardInterrupt: {_interrupted(view, name, brought)}"])
    if view.state is RunState.CANCELLED:
        reason = f" ({plain(view.reason, 120)})" if view.reason else ""
        return quiet(RunCancelled(f"run {name} was stopped from elsewhere{_after(view)}{reason}"))
    if view.state is None or not view.state.is_terminal:
        why = f": {plain(str(gave_up), 200)}" if gave_up is not None and str(gave_up) else ""
        return quiet(
            ClusterUnreachable(
                f"the cluster of run {name} does not answer{why}. The run may go on without us:  "
                f"%train attach {view.run_id}  looks again."
            )
        )
    return None


def _interrupted(view: RunView, name: str, brought: int) -> str:
    if view.state is None or not view.state.is_terminal:
        return f"run {name} was told to stop and has not said that it did;  %train stop {view.run_id} --kill  tells it again"
    if view.state is RunState.SUCCEEDED:
        return f"run {name} had ended by itself; its names are in the notebook"
    names = f"; {brought} name{'s' * (brought != 1)} that it had bound are in the notebook" if brought else ""
    return f"run {name} was stopped{_after(view)}{names}"


def _after(view: RunView) -> str:
    done = steps_done(view)
    return f" after step {done}" if done else ""
