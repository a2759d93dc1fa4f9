"""The store: all journals of one user, read as one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jupyter_train.errors import RunNotFound, StoreError
from jupyter_train.home import RUN_ID, home, journals_folder
from jupyter_train.record import Event, RunState, RunView, fold
from jupyter_train.store.find import find_run, not_found
from jupyter_train.store.liveness import ControllerMark, is_silent, process_start, this_boot
from jupyter_train.store.reader import JournalReader
from jupyter_train.store.summary import RunSummary


class Store:
    """Reads the journals below ``root`` (default: the user's home); any thread, any process.

    A journal that cannot be read never hides the others: it is named in ``problems``.
    """

    def __init__(self, root: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.root = Path(root) if root is not None else home()
        self.problems: tuple[StoreError, ...] = ()  #: found by the newest call; each names its file
        self._clock = clock

    def runs(self, limit: int | None = None) -> list[RunSummary]:
        """The runs, newest first. A run whose controller is gone is LOST."""
        found = sorted(
            (summary for summary, _ in self._scan().values()),
            key=lambda s: (s.started or 0.0, s.run_id),
            reverse=True,
        )
        return found[:limit]

    def events(self, run_id: str, after: int = 0) -> list[Event]:
        """Events of one run numbered above ``after``, in order.

        Raises:
            RunNotFound: the store has no such run.
            StoreTooNew, StoreDamaged: its journal cannot be read.
        """
        return self._reader(run_id)[1].events(run_id, after)

    def view(self, run_id: str) -> RunView:
        """The run as of now; LOST where its controller is gone.

        Raises:
            RunNotFound: the store has no such run.
            StoreTooNew, StoreDamaged: its journal cannot be read.
        """
        summary, reader = self._reader(run_id)
        view = fold(reader.events(run_id), RunView(run_id=run_id))
        if summary.state is RunState.LOST and view.state is not None and not view.state.is_terminal:
            view = replace(view, state=summary.state, reason=summary.reason)
        return view

    def find(self, ref: str, *, session: str = "", notebook: str = "") -> str:
        """The id of the run that a user means by ``ref``.

        ``last`` is the newest run of ``session`` (a kernel's id), else of
        ``notebook`` (a path), else of the store; otherwise it is an id, a name
        (the newest of that name), or the start of an id.

        Raises:
            RunNotFound: there is none, or more than one id starts so; near ones are named.
        """
        return find_run(ref, self.runs(), session=session, notebook=notebook, problems=self.problems)

    def _reader(self, run_id: str) -> tuple[RunSummary, JournalReader]:
        found = self._scan()
        if not RUN_ID.fullmatch(run_id) or run_id not in found:
            raise RunNotFound(not_found(run_id, [s for s, _ in found.values()], self.problems))
        return found[run_id]

    def _scan(self) -> dict[str, tuple[RunSummary, JournalReader]]:
        """Each run with the journal that knows most of it."""
        found: dict[str, tuple[RunSummary, JournalReader]] = {}
        problems: list[StoreError] = []
        for path in sorted(journals_folder(self.root).glob("*.sqlite")):
            reader = JournalReader(path)
            try:
                mark, summaries = reader.mark_and_summaries()
            except StoreError as problem:
                problems.append(problem)
                continue
            for summary in summaries:
                known = found.get(summary.run_id)
                if RUN_ID.fullmatch(summary.run_id) and (known is None or known[0].seq < summary.seq):
                    found[summary.run_id] = (self._judged(summary, mark), reader)
        self.problems = tuple(problems)
        return found

    def _judged(self, summary: RunSummary, mark: ControllerMark | None) -> RunSummary:
        if summary.state is None or summary.state.is_terminal or mark is None:
            return summary
        if not is_silent(mark, now=self._clock(), boot=this_boot(), start_of=process_start):
            return summary
        how = "ended" if mark.closed is not None else "fell silent"
        return replace(
            summary,
            state=RunState.LOST,
            reason=f"the controller on {mark.hostname} {how} while the run was {summary.state}",
        )
