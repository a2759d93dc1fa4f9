"""``Run``: one run, in the hands of the user. Its methods may be called from any thread but where noted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jupyter_train.errors import RunError, TrainError
from jupyter_train.notebook.bundle import headline, make_bundle, plain
from jupyter_train.notebook.failure import noted
from jupyter_train.notebook.follow import Follower, Watcher
from jupyter_train.notebook.outcome import outcome
from jupyter_train.notebook.returning import Arrival, Brought, Returning
from jupyter_train.notebook.source import EventSource, HistoryFirst, all_events
from jupyter_train.record import Call, Proof, RunState, RunView, fold
from jupyter_train.transport.call import RETURN_VALUE, argument_label

if TYPE_CHECKING:
    from jupyter_train.control.client import ControllerClient
    from jupyter_train.notebook.checkpoints import Checkpoints
    from jupyter_train.notebook.known import Program
    from jupyter_train.notebook.live import LiveView
    from jupyter_train.transport.capture import Capture


class Run:
    """A run: what it is doing, what it measured, what came back.

    ``connect`` gives the controller of its cluster, and raises ClusterError
    where that is gone; reading works without. ``siblings`` are the runs of the
    same notebook.
    """

    def __init__(
        self,
        run_id: str,
        source: EventSource,
        *,
        connect: Callable[[], ControllerClient],
        namespace: dict[str, Any],
        name: str = "",
        capture: Capture | None = None,
        cell: str = "",
        sent_bytes: int | None = None,
        siblings: Callable[[], Iterable[Run]] = tuple,
        program: Program | None = None,
    ) -> None:
        self.id = run_id
        self.source = source
        #: What left the kernel for it, data that was on the cluster already not counted; None: another kernel's.
        self.sent_bytes = sent_bytes
        self.shown_by: list[LiveView] = []  #: displays that want to hear what came back
        self.program = program  #: None: another kernel's, or one that splits nothing
        self._name = name
        self._connect = connect
        self._namespace = namespace
        self._cell = cell
        self._siblings = siblings
        self._returning = Returning(run_id, connect=connect, namespace=namespace, capture=capture)
        self._view = RunView(run_id=run_id)
        self._follower: Follower | None = None
        self._brought: Brought | None = None
        self._lock = threading.RLock()

    # What it is

    @property
    def name(self) -> str:
        """What the user called it."""
        if not self._name and self.view.spec is not None:
            self._name = self.view.spec.name
        return self._name or self.id

    @property
    def view(self) -> RunView:
        """Everything that is known of it now."""
        known = self.known
        follower = self._follower
        if follower is not None and (follower.is_following or _is_over(known)):
            return known
        with self._lock:
            if not _is_over(self._view):
                batch = all_events(self.source, self._view.seq)
                if batch.events:
                    self._view = fold(batch.events, self._view)
                if batch.lost and not _is_over(self._view):
                    self._view = replace(self._view, state=RunState.LOST, reason=batch.lost)
            return self._view

    @property
    def known(self) -> RunView:
        """What is known of it already, without asking anybody."""
        # A follower that has just been started has to hear the beginning first.
        follower, view = self._follower, self._view
        return follower.view if follower is not None and follower.view.seq >= view.seq else view

    @property
    def state(self) -> RunState | None:
        """Where it stands."""
        return self.view.state

    @property
    def is_over(self) -> bool:
        """Whether it has ended, as far as is known without asking anybody."""
        return _is_over(self.known)

    @property
    def is_followed(self) -> bool:
        """Whether a thread of this process listens for its news."""
        return self._follower is not None and self._follower.is_following

    @property
    def proof(self) -> Proof | None:
        """Whether it trains what one process would: ``.verdict``, ``.text``, ``.difference``; None while that is not known."""
        return self.view.proof

    @property
    def params(self) -> dict[str, Any]:
        """What ``-p`` gave it."""
        spec = self.view.spec
        return dict(spec.params) if spec is not None else {}

    @property
    def provenance(self) -> dict[str, Any]:
        """What is on record of how it came about: source, parameters, git commit, versions, machines of its ranks."""
        from jupyter_train.notebook.provenance import on_record

        return on_record(self.view)

    @property
    def metrics(self) -> Any:
        """Every step's metrics, mean over the ranks: a DataFrame with pandas, else a dict of ``(steps, values)``."""
        from jupyter_train.notebook.frames import metrics_table

        return metrics_table(self.view)

    @property
    def curves(self) -> dict[str, dict[int, tuple[Any, Any]]]:
        """Every value that was logged: name → rank → (steps, values)."""
        return {
            name: {rank: (curve.steps, curve.values) for rank, curve in of_ranks.items()}
            for name, of_ranks in self.view.curves.items()
        }

    @property
    def checkpoints(self) -> Checkpoints:
        """What it keeps, oldest first: each with ``.step``, ``.epoch``, ``.time``, ``.metric``, ``.path`` and ``.load()``."""
        from jupyter_train.notebook.checkpoints import checkpoints_of

        return checkpoints_of(self.id, self.view.checkpoints, self._connect)

    def log(self, rank: int | None = None) -> str:
        """What it wrote, all of it or one rank's."""
        from jupyter_train.notebook.table import log_text

        return log_text(all_events(self.source, 0).events, rank)

    # What can be done with it

    def stop(self, force: bool = False) -> None:
        """Asks it to stop after the step; ``force`` ends its processes at once. Returns without waiting.

        Raises:
            ClusterError: its cluster does not answer.
        """
        self._connect().stop(self.id, force=force, reason="stopped by hand")

    def wait(self, timeout: float | None = None) -> Run:
        """Waits for its end and brings its names into the notebook. Main thread only, for the names.

        An interrupt ends the waiting; the run goes on.

        Raises:
            TimeoutError: it has not ended after ``timeout`` seconds.
            RunCancelled: it was stopped.
            Exception: what its cell raised.
        """
        follower = self.follow()
        if not follower.done.wait(timeout):
            raise TimeoutError(f"run {self.name} is {self.state} after {timeout:g} s of waiting")
        waited_for = self._brought is None
        brought = self.bring_in()
        for live in self.shown_by if waited_for else ():
            live.conclude(brought.remarks, again=True)
        error = self.outcome(brought)
        if error is not None:
            raise error
        return self

    @property
    def value(self) -> Any:
        """What the function returned on rank 0. Waits, as :meth:`wait` does, and raises what that raises.

        Raises:
            RunError: the run was a cell, or its value could not travel.
        """
        self.wait()
        if self._call is None:
            raise RunError(f"run {self.name} was a cell: it has names, .result(), and no value")
        brought = self.bring_in()
        if not brought.returned:
            why = [remark for remark in brought.remarks if remark.startswith(RETURN_VALUE)]
            why += [
                remark for remark in self.view.remarks if "cannot come back" in remark
            ]  # a full disk there
            raise RunError(f"run {self.name}: {why[0] if why else 'its value did not come back'}")
        return brought.returned[0]

    def result(self, name: str | None = None) -> Any:
        """What came back: all names as a dict, or the value of one. Waits for the end; the notebook's names stay.

        A name that the cell changed, but by too much to come back by itself, is
        changed now in the notebook's own object, which is the value: main thread.

        Of a function call it is what the function returned, as :attr:`value`
        gives it; with a name, that argument as the function left it.

        Raises:
            RunError: nothing came back.
            KeyError: not that name; says which there are.
        """
        if name is None and self._call is not None:
            return self.value
        if not _is_over(self.view):
            self.follow().done.wait()
        view = self.view
        with self._lock:
            path = self._returning.file(view, whole=name is None or _is_large(view, name))
            if path is None:
                raise RunError(f"run {self.name} is {self.state} and brought nothing back")
            own = self._returning.change_large(path, name) if name is not None else ()
        if own:
            return own[0]
        names = self._returning.load(view, path)
        if name is None:
            return names
        for known in (name, argument_label(name)):
            if known in names:
                return names[known]
        raise KeyError(
            f"{name!r} did not come back from run {self.name}; there are {', '.join(names) or 'none'}"
        )

    def rename(self, name: str) -> None:
        """Calls it ``name`` from now on, for every reader of this store.

        Raises:
            ValueError: that is no name for a run.
            StoreError: it cannot be written down.
            RunNotFound: its journal is not on this disk (yet).
        """
        from jupyter_train.notebook.words import label
        from jupyter_train.store import Store

        wanted = label(name)
        Store().rename(self.id, wanted)
        self._name = wanted

    def tag(self, **tags: str | None) -> None:
        """Gives it tags, besides those that it has: ``run.tag(paper="table 2")``; None takes one away.

        Raises:
            StoreError: it cannot be written down.
            RunNotFound: its journal is not on this disk (yet).
        """
        from jupyter_train.store import Store

        Store().tag(self.id, {key: None if value is None else str(value) for key, value in tags.items()})

    def delete(self) -> None:
        """Takes it out of every list for good, with its files on this disk: results, checkpoints, history.

        Raises:
            RunError: it has not ended.
            StoreError: it cannot be written down; nothing was deleted.
            RunNotFound: its journal is not on this disk (yet).
        """
        from jupyter_train.notebook.session import current_session
        from jupyter_train.store import Store

        Store().delete(self.id)
        current_session().runs.pop(self.id, None)

    # What the magics use

    def follow(self, *watchers: Watcher, history: EventSource | None = None) -> Follower:
        """The follower of this run, started if need be; with new ``watchers`` a further one.

        ``history`` has what happened before, and perhaps sooner than whoever has the news.
        """
        with self._lock:
            follower = self._follower
            usable = follower is not None and (follower.is_following or _is_over(follower.view))
            if follower is None or watchers or not usable:
                self._view = self.known
                source = self.source if history is None else HistoryFirst(history, self.source)
                follower = Follower(source, self.id, watchers=watchers).start()
                self._follower = follower
            return follower

    def bring_in(self, *, waited: bool = False) -> Brought:
        """Puts what came back into the notebook, once. Main thread: it runs the classes' own code.

        Args:
            waited: whether the notebook did nothing since the run began.
        """
        with self._lock:
            if self._brought is not None:
                return self._brought
            view = self.view
            try:
                path = self._returning.file(view, whole=False)
                if path is None:
                    self._brought = Brought()
                    return self._brought
                brought, arrival = self._returning.apply(view, path, waited=waited)
            except (TrainError, OSError, ValueError) as error:
                # The cell's own error matters more, and the next call tries again.
                return Brought(trouble=error, remarks=(f"its names did not come back: {error}",))
            self._brought = brought
        for other in self._siblings():
            if other is not self:
                other.hear(arrival)
        return brought

    def hear(self, arrival: Arrival) -> None:
        """Another run of this notebook has brought its names in: one of the two has to give way."""
        self._returning.hear(arrival)

    def let_go_of_value(self) -> None:
        """Whoever took :attr:`value` has it: a run that is kept for its curves need not keep a model."""
        with self._lock:
            if self._brought is not None:
                self._brought = replace(self._brought, returned=())

    @property
    def _call(self) -> Call | None:
        spec = self.known.spec or self.view.spec
        return spec.call if spec is not None else None

    def interrupt(self, *, force: bool) -> None:
        """What ■ does: as :meth:`stop`, with the reason that people read elsewhere."""
        self._connect().stop(self.id, force=force, reason="interrupted in the notebook")

    def outcome(self, brought: Brought, *, interrupts: int = 0) -> BaseException | None:
        """The exception that ends the wait for this run, None where it succeeded."""
        error = outcome(
            self.view,
            name=plain(self.name, 80),
            brought=len(brought.names),
            interrupts=interrupts,
            shipped=brought.error,
            namespace=self._namespace,
            cell=self._cell,
            gave_up=self._follower.gave_up if self._follower is not None else None,
        )
        error = error or brought.trouble
        # Functions are called from scripts too, where nothing asks an error how it wants to look.
        return error if error is None or self._call is None else noted(error)

    # What it looks like

    def __repr__(self) -> str:
        return f"<Run {plain(self.name, 80)} ({self.id}) {headline(self.view, now=time.time())}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        return make_bundle(self.view, name=self.name, now=time.time())


def _is_over(view: RunView) -> bool:
    return view.state is not None and (view.state.is_terminal or view.state is RunState.LOST)


def _is_large(view: RunView, name: str) -> bool:
    large = view.artifacts.get("result", {}).get("large", ())
    return name in large or argument_label(name) in large
