"""Where shared memory of ranks has a name, for the moment in which they map it: ranks make it, agents sweep it."""

from __future__ import annotations

from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "jupyter-train-"
