"""A rank on another host begins from files that are brought there."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from jupyter_train.home import private_folder, run_folder
from jupyter_train.record.checkpoint import ResumePoint
from jupyter_train.runtime.checkpoint import fetching
from jupyter_train.runtime.checkpoint.fetching import fetch_missing

RUN = "20261122-153000-ab12cd"
POINT = ResumePoint(
    run_id=RUN,
    attempt=1,
    number=2,
    step=20,
    files=("checkpoint-1-2.pt", "checkpoint-1-2.1.pt", "checkpoint-1-2.2.pt"),
    workers=("w0", "w1", "w2"),
)


class Agent:
    """An agent on whose host the files lie."""

    def __init__(self, files: dict[str, bytes], asked: list[str]) -> None:
        self.files = files
        self.asked = asked

    async def train_artifact_get(self, *, run_id: str, name: str, offset: int, length: int) -> dict[str, Any]:
        assert run_id == RUN
        if name not in self.files:
            raise FileNotFoundError(name)
        self.asked.append(name)
        return {"data": self.files[name][offset : offset + length], "total": len(self.files[name])}


def fetch(root: Path, agents: dict[str, Agent], ranks: list[int]) -> list[str]:
    """What lies in the run's folder after ``ranks`` were to begin here."""
    folder = private_folder(run_folder(RUN, root))
    asyncio.run(fetch_missing(asdict(POINT), ranks, root=root, agent=lambda worker: agents[worker]))
    return sorted(path.name for path in folder.iterdir())


def test_what_its_ranks_need_and_this_disk_lacks_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "CHUNK_BYTES", 3)
    asked: list[str] = []
    agents = {f"w{k}": Agent({name: b"0123456789"[k:]}, asked) for k, name in enumerate(POINT.files)}
    assert fetch(tmp_path, agents, [2]) == ["checkpoint-1-2.2.pt", "checkpoint-1-2.pt"]
    folder = run_folder(RUN, tmp_path)
    assert (folder / "checkpoint-1-2.pt").read_bytes() == b"0123456789"
    assert (folder / "checkpoint-1-2.2.pt").read_bytes() == b"23456789"
    assert (folder / "checkpoint-1-2.pt").stat().st_mode & 0o777 == 0o600
    asked.clear()
    fetch(tmp_path, agents, [2])
    assert asked == []


def test_what_cannot_be_had_leaves_nothing_behind(tmp_path: Path) -> None:
    agents = {"w0": Agent({}, []), "w1": Agent({}, [])}
    assert fetch(tmp_path, agents, [0, 1]) == []


def test_a_run_that_begins_at_its_start_asks_nobody(tmp_path: Path) -> None:
    asyncio.run(fetch_missing(None, [0], root=tmp_path, agent=pytest.fail))
