"""The store: all journals of one user, read as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jupyter_train.errors import RunError, RunNotFound, StoreError
from jupyter_train.home import RUN_ID, home, journals_folders
from jupyter_train.record import Event, RunState, RunView, fold
from jupyter_train.store.deleting import remove_files, remove_rows, size_of
from jupyter_train.store.find import find_run, not_found
from jupyter_train.store.glance import Glances
from jupyter_train.store.labels import FILE, Label, Labels
from jupyter_train.store.liveness import ControllerMark, is_silent, process_start, this_boot, this_moment
from jupyter_train.store.reader import JournalReader
from jupyter_train.store.summary import RunSummary

_glances = Glances()  #: of this process: nearly every question makes a store of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One run as it lies in one journal."""

    summary: RunSummary  #: judged: LOST where the controller is gone
    reader: JournalReader


class Store:
    """Reads the journals below ``root`` (default: the user's home), and says more of their runs; any thread, any process.

    A journal that cannot be read never hides the others: it is named in ``problems``.
    """

    def __init__(self, root: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.root = Path(root) if root is not None else home()
        self.problems: tuple[StoreError, ...] = ()  #: found by the newest call; each names its file
        self._clock = clock
        self._glances = _glances

    def runs(self, limit: int | None = None) -> list[RunSummary]:
        """The runs, newest first. A run whose controller is gone is LOST."""
        found = sorted(
            (kept.summary for kept in self._scan().values()),
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
        return self.journal_of(run_id).events(run_id, after)

    def journal_of(self, run_id: str) -> JournalReader:
        """The journal that knows most of one run now.

        Raises:
            RunNotFound: the store has no such run.
        """
        return self._kept(run_id).reader

    def summary(self, run_id: str) -> RunSummary:
        """The row of one run, as :meth:`runs` has it.

        Raises:
            RunNotFound: the store has no such run.
        """
        return self._kept(run_id).summary

    def view(self, run_id: str) -> RunView:
        """The run as of now; LOST where its controller is gone.

        Raises:
            RunNotFound: the store has no such run.
            StoreTooNew, StoreDamaged: its journal cannot be read.
        """
        kept = self._kept(run_id)
        view = fold(kept.reader.events(run_id), RunView(run_id=run_id))
        summary = kept.summary
        if summary.state is RunState.LOST and view.state is not None and not view.state.is_terminal:
            view = replace(view, state=summary.state, reason=summary.reason)
        label = self._said().get(run_id)
        return view if label is None else label.on_view(view)

    def find(self, ref: str, *, session: str = "", notebook: str = "") -> str:
        """The id of the run that a user means by ``ref``.

        ``last`` is the newest run of ``session`` (a kernel's id), else of
        ``notebook`` (a path), else of the store; otherwise it is an id, a name
        (the newest of that name), or the start of an id.

        Raises:
            RunNotFound: there is none, or more than one id starts so; near ones are named.
        """
        return find_run(ref, self.runs(), session=session, notebook=notebook, problems=self.problems)

    # What readers say of runs

    def rename(self, run_id: str, name: str | None) -> None:
        """Call it ``name`` from now on; None: as it was submitted. Whether the name is a fit one is the caller's affair.

        Raises:
            RunNotFound: the store has no such run.
            StoreError: it cannot be written down.
        """
        self._kept(run_id)
        self._labels.change([run_id], lambda label: replace(label, name=name))

    def tag(self, run_id: str, tags: Mapping[str, str | None]) -> None:
        """Give it these tags, besides those that it has; a value of None takes that tag away.

        Raises:
            RunNotFound: the store has no such run.
            StoreError: it cannot be written down.
        """
        self._kept(run_id)
        self._labels.change([run_id], lambda label: replace(label, tags={**label.tags, **tags}))

    def delete(self, *run_ids: str) -> int:
        """Hide these runs for good, and take their files and rows from this disk; bytes that became free.

        Rows go where the journal's controller is gone, else at a later deletion:
        nobody but its controller writes a journal. Files on other hosts stay there.

        Raises:
            RunNotFound: the store has no such run; nothing was deleted.
            RunError: one of them has not ended; nothing was deleted.
            StoreError: it cannot be written down; nothing was deleted.
        """
        found = self._scan()
        for run_id in run_ids:
            state = self._kept(run_id, found).summary.state
            if state is not None and not (state.is_terminal or state is RunState.LOST):
                raise RunError(f"run {run_id} is {state}: stop it first, with  %train stop {run_id}")
        now = self._clock()
        self._labels.change(run_ids, lambda label: replace(label, deleted=label.deleted or now))
        return self.sweep()

    def sweep(self) -> int:
        """Take from this disk what deleted runs still have there; bytes that became free."""
        deleted = {
            run_id for run_id, label in self._said().items() if label.deleted and RUN_ID.fullmatch(run_id)
        }
        freed = remove_files(deleted, self.root)
        if deleted:
            for path in self._journals():
                try:
                    mark, summaries = JournalReader(path).mark_and_summaries()
                except StoreError:
                    continue
                of_it = deleted.intersection(summary.run_id for summary in summaries)
                if of_it and (mark is None or self._silence()(mark)):
                    freed += remove_rows(path, of_it)
        return freed

    def sizes(self) -> dict[str, int]:
        """Bytes on this disk, by run: its files, and its rows in the journal."""
        rows: dict[Path, dict[str, int]] = {}
        sizes = {}
        for run_id, kept in self._scan().items():
            path = kept.reader.path
            if path not in rows:
                try:
                    rows[path] = kept.reader.sizes()
                except StoreError:
                    rows[path] = {}
            sizes[run_id] = rows[path].get(run_id, 0) + size_of(run_id, self.root)
        return sizes

    @property
    def _labels(self) -> Labels:
        return Labels(self.root / FILE)

    def _said(self) -> dict[str, Label]:
        try:
            return self._labels.read()
        except StoreError as problem:
            self.problems = (*(p for p in self.problems if str(p) != str(problem)), problem)
            return {}

    # Reading

    def _kept(self, run_id: str, found: Mapping[str, Kept] | None = None) -> Kept:
        found = self._scan() if found is None else found
        if not RUN_ID.fullmatch(run_id) or run_id not in found:
            raise RunNotFound(not_found(run_id, [kept.summary for kept in found.values()], self.problems))
        return found[run_id]

    def _journals(self) -> list[Path]:
        # A journal before its copy: of two that know the same, the first one counts.
        found = [path for folder in journals_folders(self.root) for path in folder.glob("*.sqlite")]
        return sorted(found, key=lambda path: (path.name.endswith(".copy.sqlite"), path.name))

    def _scan(self) -> dict[str, Kept]:
        """Each run that is not deleted, as the journal has it that knows most of it."""
        found: dict[str, Kept] = {}
        problems: list[StoreError] = []
        is_silent = self._silence()
        for path in self._journals():
            reader = JournalReader(path)
            try:
                seen = self._glances.at(path)
            except StoreError as problem:
                problems.append(problem)
                continue
            gone = seen.mark if seen.mark is not None and is_silent(seen.mark) else None
            for summary in seen.summaries:
                known = found.get(summary.run_id)
                if RUN_ID.fullmatch(summary.run_id) and (known is None or known.summary.seq < summary.seq):
                    judged = summary if gone is None else _lost(summary, gone)
                    found[summary.run_id] = Kept(summary=judged, reader=reader)
        self.problems = tuple(problems)
        for run_id, label in self._said().items():
            if run_id in found and label.deleted:
                del found[run_id]
            elif run_id in found:
                found[run_id] = replace(found[run_id], summary=label.on_summary(found[run_id].summary))
        return found

    def _silence(self) -> Callable[[ControllerMark], bool]:
        """Tells whether the controller of a mark is gone by now."""
        now, boot = this_moment(self._clock()), this_boot()
        return lambda mark: is_silent(mark, now=now, boot=boot, start_of=process_start)


def _lost(summary: RunSummary, mark: ControllerMark) -> RunSummary:
    """``summary`` as it stands where its controller is gone."""
    if summary.state is None or summary.state.is_terminal:
        return summary
    how = "ended" if mark.closed is not None else "fell silent"
    reason = f"the controller on {mark.hostname} {how} while the run was {summary.state}"
    if mark.origin and mark.closed is None:
        heard = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(mark.heartbeat))
        reason = (
            f"nothing was heard since {heard} of the controller on {mark.hostname}, when the run was {summary.state}; "
            f"where its cluster still runs,  %train cluster use {mark.origin}  looks again"
        )
    return replace(summary, state=RunState.LOST, reason=reason)
