"""The Python form of the magics: ``jt.run("last")``, ``jt.runs()``. Also how a run is found by what people call it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jupyter_train.errors import ClusterError, ClusterUnreachable, RunNotFound
from jupyter_train.home import RUN_ID
from jupyter_train.notebook.copying import keep_copy
from jupyter_train.notebook.run import Run
from jupyter_train.notebook.session import Session, current_session
from jupyter_train.notebook.source import ControllerSource, EventSource, FirstThatAnswers, StoreSource
from jupyter_train.notebook.submit import Prepared
from jupyter_train.notebook.table import RunTable
from jupyter_train.store import RunSummary, Store

if TYPE_CHECKING:
    from jupyter_train.control.client import ControllerClient
    from jupyter_train.notebook.comparison import Comparison


def runs(limit: int | None = 50) -> RunTable:
    """The runs in the store, newest first: a table, with ``to_frame()``. ``None``: all of them."""
    store = Store()
    found = [_newest(summary, current_session()) for summary in store.runs(limit)]
    return RunTable(found, problems=store.problems)


def _newest(summary: RunSummary, session: Session) -> RunSummary:
    """``summary``, as ended where this kernel has seen the end: the journal has it a blink later, or when its disk lets it."""
    mine = session.runs.get(summary.run_id)
    view = mine.known if mine is not None else None
    if view is None or view.state is None or not view.state.is_terminal or view.seq <= summary.seq:
        return summary
    return replace(
        summary,
        seq=view.seq,
        state=view.state,
        reason=view.reason,
        running_since=view.running_since,
        ended=view.ended,
    )


def run(ref: str = "last") -> Run:
    """The run that ``ref`` means: a name (the newest of it), the start of an id, or ``last``.

    Raises:
        RunNotFound: there is none; near ones are named.
    """
    return find(ref, current_session())


def compare(first: str | Run, second: str | Run) -> Comparison:
    """Two runs side by side: curves over each other, newest and best values, settings and code that differ.

    Raises:
        RunNotFound: there is no such run; near ones are named.
    """
    from jupyter_train.notebook.comparison import Comparison

    runs = [one if isinstance(one, Run) else run(one) for one in (first, second)]
    return Comparison((runs[0].view, runs[1].view), (runs[0].name, runs[1].name))


def find(ref: str, session: Session) -> Run:
    """See :func:`run`. Runs of clusters that keep their journal elsewhere are known to the current connection."""
    store = Store()
    try:
        run_id = store.find(ref, session=session.id, notebook=session.notebook)
    except RunNotFound:
        several = sum(known.run_id.startswith(ref) for known in store.runs()) > 1
        found = None if several or not ref.strip() else _elsewhere(ref, session)
        if found is None:
            raise
        return found
    names = {known.run_id: known.name for known in store.runs()}
    mine = _of_this_kernel(ref, session)
    if mine is not None and mine.id > run_id and mine.id not in names:
        # Its journal is on another machine, or not yet written.
        return mine
    if run_id not in session.runs:
        session.remember(
            Run(
                run_id,
                _source(store, run_id),
                connect=lambda: controller_of(store.view(run_id).spec, run_id),
                namespace=session.namespace,
                name=names.get(run_id, ""),
            )
        )
    return session.runs[run_id]


def _source(store: Store, run_id: str) -> EventSource:
    """The journal; of a run that may go on in a cluster whose journal is copied, the controller before it."""
    from jupyter_train import cluster

    current, journal = cluster.current(), StoreSource(store, run_id)
    state = store.summary(run_id).state
    is_over = state is not None and state.is_terminal
    if is_over or current is None or current.kind == "local" or not current.is_alive:
        return journal
    keep_copy(current)
    return FirstThatAnswers(ControllerSource(current.control, run_id), journal)


def own_run(prepared: Prepared, session: Session, cell: str) -> Run:
    """The handle of a run that this kernel starts."""
    spec, control = prepared.spec, prepared.connection.control
    made = Run(
        spec.run_id,
        FirstThatAnswers(ControllerSource(control, spec.run_id), StoreSource(Store(), spec.run_id)),
        connect=lambda: control,
        namespace=prepared.namespace,
        name=spec.name,
        capture=prepared.capture,
        cell=cell,
        sent_bytes=prepared.sent_bytes,
        siblings=lambda: tuple(session.runs.values()),
        program=prepared.program,
    )
    session.remember(made)
    keep_copy(prepared.connection)
    return made


def controller_of(spec: object, run_id: str) -> ControllerClient:
    """The controller of the cluster that a run is on; never starts a cluster.

    Raises:
        ClusterError: the cluster is gone or does not answer.
    """
    from jupyter_train import cluster

    name = str(getattr(spec, "cluster", ""))
    current = cluster.current()
    if current is not None and current.is_alive and name in ("", current.name, current.address):
        return current.control
    if not name or name == "local":
        raise ClusterUnreachable(
            f"run {run_id}: its cluster is not known here:  %train cluster use ADDRESS  first"
        )
    return cluster.open_cluster(name).control


def _of_this_kernel(ref: str, session: Session) -> Run | None:
    """The newest run started here that ``ref`` may mean."""
    for known in reversed(session.runs.values()):
        if ref in ("last", known.name) or known.id.startswith(ref):
            return known
    return None


def _elsewhere(ref: str, session: Session) -> Run | None:
    """A run of this kernel or of the connected cluster whose journal is not on this disk."""
    mine = _of_this_kernel(ref, session)
    if mine is not None:
        return mine
    from jupyter_train import cluster

    current = cluster.current()
    if current is None or not current.is_alive:
        return None
    control = current.control
    try:
        active = control.hello()["runs"]
    except (OSError, TimeoutError, ClusterError):
        return None
    for row in sorted(active, key=lambda row: str(row["run_id"]), reverse=True):
        run_id = str(row["run_id"])
        if RUN_ID.fullmatch(run_id) and (ref in ("last", row.get("name")) or run_id.startswith(ref)):
            source = ControllerSource(control, run_id)
            found = Run(run_id, source, connect=lambda: control, namespace=session.namespace)
            session.remember(found)
            keep_copy(current)
            return found
    return None
