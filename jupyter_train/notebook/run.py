"""``Run``: one run, in the hands of the user. Its methods may be called from any thread but where noted."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_train import home
from jupyter_train.errors import RunError
from jupyter_train.notebook.bundle import headline, make_bundle, plain
from jupyter_train.notebook.failure import noted
from jupyter_train.notebook.follow import Follower, Watcher
from jupyter_train.notebook.outcome import outcome
from jupyter_train.notebook.source import EventSource
from jupyter_train.record import Call, Event, EventKind, RunState, RunView, fold
from jupyter_train.transport.call import RETURN_VALUE, argument_label, is_label

if TYPE_CHECKING:
    from jupyter_train.control.client import ControllerClient
    from jupyter_train.notebook.live import LiveView
    from jupyter_train.transport.capture import Capture

_RESULT_FILE = re.compile(r"result-\d+\.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What came back into the notebook."""

    names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    error: BaseException | None = None  #: rank 0's exception object, where the cell raised
    returned: tuple[Any, ...] = ()  #: the value that a function call gave, if it came


class Run:
    """A run: what it is doing, what it measured, what came back.

    ``connect`` gives the controller of its cluster, and raises ClusterError
    where that is gone; reading works without.
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
    ) -> None:
        self.id = run_id
        self.source = source
        #: What left the kernel for it, data that was on the cluster already not counted; None: another kernel's.
        self.sent_bytes = sent_bytes
        self.shown_by: list[LiveView] = []  #: displays that want to hear what came back
        self._name = name
        self._connect = connect
        self._namespace = namespace
        self._capture = capture
        self._cell = cell
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
        follower = self._follower
        if follower is not None and (follower.is_following or _is_over(follower.view)):
            return follower.view
        with self._lock:
            if not _is_over(self._view):
                batch = self.source.poll(self._view.seq, 0.0)
                if batch.events:
                    self._view = fold(batch.events, self._view)
                elif batch.lost:
                    self._view = replace(self._view, state=RunState.LOST, reason=batch.lost)
            return self._view

    @property
    def known(self) -> RunView:
        """What is known of it already, without asking anybody."""
        return self._follower.view if self._follower is not None else self._view

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
    def params(self) -> dict[str, Any]:
        """What ``-p`` gave it."""
        spec = self.view.spec
        return dict(spec.params) if spec is not None else {}

    @property
    def metrics(self) -> Any:
        """Metrics over steps, mean over the ranks: a DataFrame with pandas, else a dict of ``(steps, values)``."""
        from jupyter_train.notebook.table import metrics_table

        return metrics_table(self.view)

    @property
    def curves(self) -> dict[str, dict[int, tuple[Any, Any]]]:
        """Every value that was logged: name → rank → (steps, values)."""
        return {
            name: {rank: (curve.steps, curve.values) for rank, curve in of_ranks.items()}
            for name, of_ranks in self.view.curves.items()
        }

    def log(self, rank: int | None = None) -> str:
        """What it wrote, all of it or one rank's."""
        from jupyter_train.notebook.table import log_text

        return log_text(self._all_events(), rank)

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
            raise RunError(f"run {self.name}: {why[0] if why else 'its value did not come back'}")
        return brought.returned[0]

    def result(self, name: str | None = None) -> Any:
        """What came back: all names as a dict, or the value of one. Waits for the end; the notebook's names stay.

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
        path = self._result_file()
        if path is None:
            raise RunError(f"run {self.name} is {self.state} and brought nothing back")
        names = self._load(path)
        if name is None:
            return names
        for known in (name, argument_label(name)):
            if known in names:
                return names[known]
        raise KeyError(
            f"{name!r} did not come back from run {self.name}; there are {', '.join(names) or 'none'}"
        )

    # What the magics use

    def follow(self, *watchers: Watcher) -> Follower:
        """The follower of this run, started if need be; with new ``watchers`` a further one."""
        with self._lock:
            follower = self._follower
            usable = follower is not None and (follower.is_following or _is_over(follower.view))
            if follower is None or watchers or not usable:
                follower = Follower(self.source, self.id, watchers=watchers).start()
                self._follower = follower
            return follower

    def bring_in(self) -> Brought:
        """Puts what came back into the notebook, once. Main thread: it runs the classes' own code."""
        with self._lock:
            if self._brought is None:
                path = self._result_file()
                self._brought = Brought() if path is None else self._apply(path)
                self._capture = None
            return self._brought

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
        # Functions are called from scripts too, where nothing asks an error how it wants to look.
        return error if error is None or self._call is None else noted(error)

    def _apply(self, path: Path) -> Brought:
        if self._capture is None:
            names = self._load(path)
            returned = (names[RETURN_VALUE],) if RETURN_VALUE in names else ()
            names = {name: value for name, value in names.items() if not is_label(name)}
            self._namespace.update(names)
            return Brought(names=tuple(names), returned=returned)
        from jupyter_train.transport.result import apply_result

        applied = apply_result(path, self._capture, self._namespace)
        came = tuple(dict.fromkeys((*applied.names, *applied.changed)))
        return Brought(
            names=came, remarks=tuple(applied.remarks), error=applied.error, returned=applied.returned
        )

    def _load(self, path: Path) -> dict[str, Any]:
        from jupyter_train.transport.content import ContentStore
        from jupyter_train.transport.result import load_result

        spec = self.view.spec
        refs = spec.capture if spec is not None else ()
        return dict(load_result(path, refs, ContentStore(home.content_folder())))

    def _result_file(self) -> Path | None:
        """The result on this disk, fetched from the cluster where it lies elsewhere."""
        artifact: Mapping[str, Any] | None = self.view.artifacts.get("result")
        if artifact is None:
            return None
        file = str(artifact.get("file"))
        if not _RESULT_FILE.fullmatch(file):
            raise RunError(f"run {self.name} names {plain(file, 80)!r} as its result, which is not one")
        path = home.run_folder(self.id) / file
        if not path.exists():
            home.private_folder(path.parent)
            try:
                self._connect().fetch(self.id, file, str(artifact.get("worker")), path)
            except OSError as error:
                raise RunError(
                    f"the result of run {self.name} cannot be kept in {path.parent}: {error}"
                ) from error
        return path

    def _all_events(self) -> list[Event]:
        events: list[Event] = []
        after = 0
        while batch := self.source.poll(after, 0.0).events:
            events += [event for event in batch if event.kind is EventKind.LOG]
            after = max(batch[-1].seq, after + 1)
        return events

    # What it looks like

    def __repr__(self) -> str:
        return f"<Run {plain(self.name, 80)} ({self.id}) {headline(self.view, now=time.time())}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        del include, exclude
        return make_bundle(self.view, name=self.name, now=time.time())


def _is_over(view: RunView) -> bool:
    return view.state is not None and (view.state.is_terminal or view.state is RunState.LOST)
