"""Is a run to be compared with one process? At the first run of a cell's text; what was proven once need not be again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from jupyter_train.record import Verdict

if TYPE_CHECKING:
    from jupyter_train.notebook.session import Session

_PROVEN = (Verdict.SAME, Verdict.RANDOM)


def key_of(source: str, ranks: int) -> str:
    """What a proof holds for: the text, and on how many ranks it ran."""
    return f"{hashlib.sha256(source.encode()).hexdigest()} {ranks}"


def wants_check(given: bool | None, key: str, session: Session) -> bool | None:
    """What a specification's ``check`` is to be: None where it costs little.

    Args:
        given: by ``--check`` or ``--no-check``; None: neither.
        key: as of :func:`key_of`.
    """
    if given is not None:
        return given
    import dask.config

    if not dask.config.get("jupyter-train.check", default=True):
        return False
    run = session.runs.get(session.checks.get(key, ""))
    proof = run.known.proof if run is not None else None
    return False if proof is not None and proof.verdict in _PROVEN else None
