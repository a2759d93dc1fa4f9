"""``%train clean``: which old runs go. The choice is pure; who carries it out asks first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyter_train.notebook.bundle import memory, plain
from jupyter_train.notebook.table import text_table
from jupyter_train.record import RunState

if TYPE_CHECKING:
    from jupyter_train.notebook.session import Session
    from jupyter_train.store import RunSummary

DAY_S = 86400.0
OLD_S = 30 * DAY_S  #: where nothing is said
_ROWS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which runs are meant: those for which all of this holds."""

    older_than_s: float | None = None  #: since their end
    larger_than: int | None = None  #: bytes on this disk
    keep: int | None = None  #: the newest so many runs stay


def to_go(
    runs: Sequence[RunSummary], sizes: Mapping[str, int], wanted: Wanted, *, now: float
) -> list[RunSummary]:
    """Those of ``runs``, which are newest first, that ``wanted`` means; oldest first.

    Never one that goes on, nor one whose checkpoint such a run may begin from again.
    """
    needed = {_begins_from(run) for run in runs if not _has_ended(run)}
    found = []
    for number, run in enumerate(runs, 1):
        stays = (
            not _has_ended(run)
            or run.run_id in needed
            or (wanted.keep is not None and number <= wanted.keep)
            or (wanted.older_than_s is not None and age_s(run, now) < wanted.older_than_s)
            or (wanted.larger_than is not None and sizes.get(run.run_id, 0) <= wanted.larger_than)
        )
        if not stays:
            found.append(run)
    return found[::-1]


def age_s(run: RunSummary, now: float) -> float:
    """Seconds since its end; of one that was lost since its start."""
    return now - (run.ended or run.started or now)


def age(seconds: float) -> str:
    """``3 days``, ``5 h``, ``12 min``."""
    if seconds >= 2 * DAY_S:
        return f"{seconds / DAY_S:.0f} days"
    return f"{seconds / 3600:.0f} h" if seconds >= 2 * 3600 else f"{max(0.0, seconds) / 60:.0f} min"


def listed(runs: Sequence[RunSummary], sizes: Mapping[str, int], *, now: float) -> str:
    """The runs that would go, as a table."""
    rows = [
        (
            run.run_id,
            plain(run.name, 40),
            str(run.state or ""),
            age(age_s(run, now)),
            memory(sizes.get(run.run_id, 0)),
        )
        for run in runs[:_ROWS]
    ]
    more = [f"… and {len(runs) - _ROWS} more"] if len(runs) > _ROWS else []
    return "\n".join([text_table(("run", "name", "state", "ended", "size"), rows), *more])


def clean(
    wanted: Wanted,
    session: Session,
    *,
    yes: bool,
    now: float,
    ask: Callable[[str], str],
    say: Callable[[str], None],
) -> None:
    """Deletes what ``wanted`` means, once somebody has agreed to the list.

    Raises:
        StoreError: it cannot be written down; nothing was deleted.
    """
    from jupyter_train.store import Store

    store = Store()
    runs, sizes = store.runs(), store.sizes()
    for problem in store.problems:
        say(f"  • {plain(str(problem))}")
    going = to_go(runs, sizes, wanted, now=now)
    if not going:
        say(f"nothing to delete: of {len(runs)} runs none {meant(wanted)}")
        return
    total = sum(sizes.get(run.run_id, 0) for run in going)
    what = f"{len(going)} run{'s' * (len(going) != 1)}, {memory(total)}"
    say(listed(going, sizes, now=now))
    if not yes and not _agreed(
        f"Delete {what}, with their results, checkpoints and history? [y/N] ", ask, say
    ):
        return
    freed = store.delete(*(run.run_id for run in going))
    for run in going:
        session.runs.pop(run.run_id, None)
    say(f"deleted: {what}; {memory(freed)} are free")


def meant(wanted: Wanted) -> str:
    """``wanted`` in words, behind "none"."""
    parts = ["has ended"]
    if wanted.older_than_s is not None:
        parts = [f"ended more than {age(wanted.older_than_s)} ago"]
    if wanted.larger_than is not None:
        parts.append(f"is larger than {memory(wanted.larger_than)}")
    if wanted.keep is not None:
        parts.append(f"lies beyond the newest {wanted.keep}")
    return " and ".join(parts)


def _agreed(question: str, ask: Callable[[str], str], say: Callable[[str], None]) -> bool:
    try:
        answer = ask(question)
    except (EOFError, NotImplementedError):  # nbconvert, a script without a terminal
        say("nothing was deleted: nobody can be asked here;  %train clean --yes  does not ask")
        return False
    if answer.strip().lower() in ("y", "yes"):
        return True
    say("nothing was deleted")
    return False


def _has_ended(run: RunSummary) -> bool:
    return run.state is RunState.LOST or (run.state is not None and run.state.is_terminal)


def _begins_from(run: RunSummary) -> str:
    resume = run.spec.get("resume")
    return str(resume.get("run_id", "")) if isinstance(resume, Mapping) else ""
