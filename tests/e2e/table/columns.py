"""The notebooks in which the table is run: one plainly, one by ``%%train``."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.e2e.kit import Notebook, Reply, new_notebook
from tests.e2e.table.cases import Case
from tests.e2e.table.compare import Difference, Outcome, differences
from tests.e2e.table.page import EVERYWHERE, Page, covers
from tests.e2e.table.shown import Output, frames_of_cells, outputs, without_view

_TIMEOUT_S = 60


class Column:
    """One kernel that runs cell after cell, each in a notebook made empty before."""

    def __init__(self, notebook: Notebook, folder: Path) -> None:
        self._notebook = notebook
        self._folder = folder
        self._number = 0

    def run(self, case: Case, magic: str) -> Outcome:
        """What ``case`` does below ``magic``: a ``%%train`` line, or a comment for the plain cell."""
        self._number += 1
        folder = self._folder / f"of_the_cell_{self._number}"
        folder.mkdir(parents=True)
        for name, text in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._probe(f"begin({str(folder)!r})")
        if case.before:
            before = self._notebook.run(case.before, timeout=_TIMEOUT_S)
            assert before.error is None, before.all_text
        self._probe("mark()")
        reply = self._notebook.run(f"{magic}\n{case.cell}", timeout=_TIMEOUT_S)
        leaves = self._folder / "leaves.pickle"
        self._probe(f"take({str(leaves)!r})")
        after = self._notebook.run(case.after, timeout=_TIMEOUT_S) if case.after else Reply()
        messages = without_view(reply.messages) if magic.startswith("%%") else reply.messages
        error = reply.error

        def named(output: Output) -> Output:
            return replace(output, text=output.text.replace(str(folder), "<folder>"))

        failed = (
            [Output(kind="error", text=f"{after.error.name}: {after.error.value}")] if after.error else []
        )
        return Outcome(
            leaves=pickle.loads(leaves.read_bytes()),
            outputs=tuple(map(named, outputs(messages))),
            after=tuple(map(named, [*outputs(after.messages), *failed])),
            error=(error.name, error.value.replace(str(folder), "<folder>")) if error else None,
            frames=tuple(frames_of_cells(error.plain_text, reply.execution_count)) if error else (),
        )

    def _probe(self, call: str) -> None:
        # Silent: no history, no execution count.
        reply = self._notebook.run(f"__import__('tests.e2e.table.probe').e2e.table.probe.{call}", silent=True)
        assert reply.error is None, reply.all_text


class Table:
    """Two kernels, and what the plain one gave already."""

    def __init__(self, plain: Column, trained: Column) -> None:
        self._plain = plain
        self._trained = trained
        self._known: dict[str, Outcome] = {}
        self.ran: set[tuple[str, int]] = set()  #: case and ranks
        self.met: set[str] = set()  #: what the page allows after any cell, as far as it was seen

    def differences(self, case: Case, ranks: int, page: Page) -> list[Difference]:
        """What is not as in a plain cell when ``case`` runs by ``%%train``."""
        if case.name not in self._known:
            # The comment makes its lines those of the other column.
            self._known[case.name] = self._plain.run(case, "# plainly")
        trained = self._trained.run(case, f"%%train -n {ranks} --name table")
        everywhere = {name: EVERYWHERE[name] for name in page.everywhere}
        found = differences(self._known[case.name], trained, everywhere)
        self.ran.add((case.name, ranks))
        self.met.update(allowed for one in found for allowed in page.any_cell if covers(allowed, one.aspect))
        return found


@contextmanager
def open_table(home: Path, folder: Path) -> Iterator[Table]:
    """The kernels and a cluster of two workers, over ``home``; the notebooks lie in ``folder``."""
    folders = [folder / name for name in ("plain", "trained")]
    for one in folders:
        one.mkdir()
    with new_notebook(home, folders[0]) as plain, new_notebook(home, folders[1]) as trained:
        # The first case would otherwise wait for the cluster.
        started = trained.run("%train cluster start local -n 2", timeout=60)
        assert started.error is None, started.all_text
        yield Table(Column(plain, folders[0]), Column(trained, folders[1]))
