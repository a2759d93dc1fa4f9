"""``%train capture``: what a cell would send, how large, and what is there already. Starts and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from IPython.core.error import UsageError

from jupyter_train import home
from jupyter_train.errors import ClusterError, RunNotFound
from jupyter_train.notebook.bundle import plain
from jupyter_train.notebook.table import text_table

if TYPE_CHECKING:
    from jupyter_train.cluster import Connection
    from jupyter_train.notebook.session import Session
    from jupyter_train.transport.survey import Survey

_SHOWN = 40
_HEAD = ("name", "what", "size", "new", "shares with")


def capture_command(words: Sequence[str], session: Session) -> str:
    """What ``%train capture`` prints: of names of the notebook, of a run's cell, or of the last cell.

    Raises:
        UsageError: the words are neither; or there was no cell yet.
    """
    names = [word for given in words for word in given.split(",") if word]
    unknown = [name for name in names if name not in session.namespace]
    if not names:
        if not session.last_cell:
            raise UsageError(
                "%train capture: no %%train cell ran in this kernel yet. Name what you ask for, as in  "
                "%train capture model,  or write  %%train capture  above a cell"
            )
        return report(session.last_cell, session, title="the last %%train cell")
    if not unknown:
        return report("", session, names=names, title=", ".join(names))
    if len(names) == 1:
        from jupyter_train.notebook.api import find

        try:
            spec = find(names[0], session).view.spec
        except RunNotFound:
            spec = None
        if spec is not None:
            return report(
                spec.source, session, title=f"the cell of run {plain(spec.name, 80)}, run again now"
            )
    import difflib

    close = difflib.get_close_matches(unknown[0], list(session.namespace), n=1)
    nearest = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"%train capture: {unknown[0]} is neither a name of the notebook nor a run{nearest}")


def report(source: str, session: Session, *, names: Sequence[str] = (), title: str = "this cell") -> str:
    """What ``source``, or ``names``, would send now, as a table.

    Raises:
        SyntaxError: ``source`` is no Python.
    """
    from jupyter_train import cluster
    from jupyter_train.transport.survey import survey

    current = cluster.current()
    is_local = current is None or current.record is not None
    found = survey(source, session.namespace, names=names, shared_disk=is_local)
    where, there = _there([ref.key for ref in found.files])
    return "\n".join(_lines(found, title, where, there))


def _lines(found: Survey, title: str, where: str, there: set[str]) -> list[str]:
    from jupyter_train.transport.limit import byte_text
    from jupyter_train.transport.quota import capture_limit

    total = sum(ref.size_bytes for ref in found.files)
    new = sum(ref.size_bytes for ref in found.files if ref.key not in there)
    plural = "s" * (len(found.items) != 1)
    lines = [
        f"{title}: {len(found.items)} name{plural}, {byte_text(total)}; {byte_text(new)} of it not yet {where}"
    ]
    if found.items:
        rows = [
            (
                item.name,
                plain(item.kind, 60),
                byte_text(item.size_bytes),
                byte_text(size) if (size := item.new_bytes(there)) else "–",
                ", ".join(item.shares),
            )
            for item in found.items[:_SHOWN]
        ]
        lines += ["", text_table(_HEAD, rows)]
    if len(found.items) > _SHOWN:
        lines.append(f"… and {len(found.items) - _SHOWN} smaller ones")
    if found.modules:
        lines += ["", f"imported there: {', '.join(found.modules)}"]
    if found.sources:
        together = byte_text(sum(found.sources.values()))
        lines += ["", f"as source files, {together}: {', '.join(found.sources)}"]
    if found.mapped:
        lines += ["", f"read from the disk there: {', '.join(plain(path, 200) for path in found.mapped)}"]
    lines += [f"cannot travel: {plain(reason, 300)}" for reason in found.refused.values()]
    if total > (limit := capture_limit()):
        lines.append(f"more than {byte_text(limit)} (jupyter-train.capture-bytes): the cell would be refused")
    return lines


def _there(keys: Sequence[str]) -> tuple[str, set[str]]:
    """Where the next run would look, and which of ``keys`` it would find there. Starts no cluster."""
    from jupyter_train import cluster
    from jupyter_train.transport.content import ContentStore

    current: Connection | None = cluster.current()
    if current is not None and current.is_alive:
        where = f"on cluster {plain(current.name, 80)}"
        try:
            return where, set(keys) - current.control.missing(keys)
        except (ClusterError, OSError, TimeoutError):  # what is kept here is the best guess
            pass
    content = ContentStore(home.content_folder())
    return "on this machine", {key for key in keys if content.has(key)}
