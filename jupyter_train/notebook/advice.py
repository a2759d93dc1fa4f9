"""What to do next, for each kind of error that a run ends with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def out_of_memory(payload: Mapping[str, Any]) -> bool:
    """Whether an error says that memory was short, of the host or of a device."""
    kind = str(payload.get("type", ""))
    text = f"{payload.get('message', '')} {payload.get('text', '')}".lower()
    return (
        kind in {"OutOfMemoryError", "MemoryError", "_ArrayMemoryError"}
        or "out of memory" in text
        or "can't allocate memory" in text
    )


def advice(payload: Mapping[str, Any], *, ref: str, rank: int, kind: str) -> str:
    """One sentence for the user; ``ref`` names the run on a magic's line."""
    log = f"%train log {ref}" + (f" --rank {rank}" if rank >= 0 else "")
    if out_of_memory(payload):
        return f"A smaller batch, or more ranks on more machines, needs less memory on each; {log}  has the rest."
    if kind == "RankLost":
        return f"Run the cell again: it gets fresh processes.  {log}  shows what this one wrote last."
    if kind == "RunTimeout":
        return "Give it more time with --timeout, or less to do; the names it had bound by then are in the notebook."
    if kind == "RanksDiverged":
        return "Let every rank take the same path, or run the plain cell on each with --strategy none."
    if kind in {"ModuleNotFoundError", "ImportError"}:
        return "The workers import in their own environment: install it there, and start the cluster again."
    if kind == "NameError":
        return "Define the name in the notebook before this cell, or in the cell before this line."
    if kind == "NotEnoughWorkers":
        return "Ask for fewer ranks with -n, or for more workers with %train cluster scale N."
    return f"{log}  shows everything that was written."
