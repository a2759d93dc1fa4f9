"""Where shared memory of ranks has a name, for the moment in which they map it: ranks make it, agents sweep it."""

from __future__ import annotations

from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "jupyter-train-"


def prefix_of(run_id: str, attempt: int | str) -> str:
    """What the names of one attempt's shared memory begin with."""
    return f"{PREFIX}{run_id}-{attempt}-"


def forget_names(run_id: str, attempt: int) -> None:
    """Remove the names that an attempt's ranks have left on this host. Call when one of them has ended.

    From then on none can map anything that not all have mapped already. A rank that is killed in the moment between
    naming and mapping leaves the name behind, and the memory with it.
    """
    for path in SHARED_MEMORY.glob(f"{prefix_of(run_id, attempt)}*"):
        path.unlink(missing_ok=True)
