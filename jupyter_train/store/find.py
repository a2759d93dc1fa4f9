"""Which run a user means: names, starts of ids, ``last``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from jupyter_train.errors import RunNotFound, StoreError
from jupyter_train.store.summary import RunSummary

_SHOWN = 3


def find_run(
    ref: str,
    runs: Sequence[RunSummary],
    *,
    session: str = "",
    notebook: str = "",
    problems: Sequence[StoreError] = (),
) -> str:
    """The id of the run meant by ``ref`` among ``runs``, which are newest first.

    Raises:
        RunNotFound: there is none, or more than one id starts so.
    """
    ref = ref.strip()
    if ref == "last" and runs:
        for of_here in (
            [r for r in runs if session and r.session == session],
            [r for r in runs if notebook and r.notebook == notebook],
            runs,
        ):
            if of_here:
                return of_here[0].run_id
    for run in runs:
        if run.run_id == ref:
            return run.run_id
    for run in runs:
        if ref and run.name == ref:
            return run.run_id
    starts = [r for r in runs if ref and r.run_id.startswith(ref)]
    if len(starts) == 1:
        return starts[0].run_id
    if starts:
        raise RunNotFound(f"{len(starts)} runs start with {ref!r}: {_listed(starts)}. Give more of the id.")
    raise RunNotFound(not_found(ref, runs, problems))


def not_found(ref: str, runs: Sequence[RunSummary], problems: Sequence[StoreError] = ()) -> str:
    """The sentence for a run that is not there: what is near, and what could not be looked at."""
    if not runs:
        text = (
            "there are no runs in the store yet"
            if ref == "last"
            else f"no run {ref!r}: the store has no runs yet"
        )
        text += "; a cell that begins with  %%train  makes the first."
    else:
        near = _near(ref, runs)
        text = f"no run {ref!r}. " + (
            f"Did you mean {_listed(near)}?"
            if near
            else f"The newest are {_listed(runs)};  %train runs  lists them."
        )
    if problems:
        text += " Not looked at: " + " ".join(str(p) for p in problems)
    return text


def _near(ref: str, runs: Sequence[RunSummary]) -> list[RunSummary]:
    by_key: dict[str, RunSummary] = {}
    for run in runs:  # newest first: it stands for its name
        for key in (run.name.lower(), run.run_id):
            if key:
                by_key.setdefault(key, run)
    wanted = ref.lower()
    keys = get_close_matches(wanted, by_key, n=_SHOWN, cutoff=0.6)
    keys += [k for k in by_key if len(wanted) > 1 and wanted in k]
    near: dict[str, RunSummary] = {by_key[k].run_id: by_key[k] for k in keys}
    return list(near.values())


def _listed(runs: Sequence[RunSummary]) -> str:
    shown = [f"{r.name!r} ({r.run_id})" if r.name else r.run_id for r in runs[:_SHOWN]]
    return ", ".join(shown) + (", …" if len(runs) > _SHOWN else "")
