"""Checkpoints come to the disk whole or not at all, and the training loop never waits for it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from jupyter_train.errors import CheckpointUnreadable
from jupyter_train.record.checkpoint import CheckpointPart, ResumePoint, checkpoint_part
from jupyter_train.runtime.checkpoint import directfile
from jupyter_train.runtime.checkpoint.keeping import Keeping
from jupyter_train.runtime.checkpoint.reader import read_file, read_point
from jupyter_train.runtime.checkpoint.shelf import remove_halves
from jupyter_train.runtime.checkpoint.state import Snapshot

RUN = "20261122-153000-ab12cd"


class Ranks:
    """The ranks of one attempt, all in this process."""

    def __init__(self, home: Path, *, attempt: int = 1, ranks: int = 1) -> None:
        self.home = home
        self.folder = home / "runs" / RUN
        self.told: list[list[Mapping[str, Any]]] = [[] for _ in range(ranks)]
        self.remarks: list[str] = []
        self.keepings = [
            Keeping(
                folder=self.folder,
                attempt=attempt,
                rank=rank,
                world_size=ranks,
                worker=f"tcp://127.0.0.1:{rank + 1}",
                tell=self.told[rank].append,
                remark=self.remarks.append,
            )
            for rank in range(ranks)
        ]

    def keep(self, number: int, **more: Any) -> None:
        """One snapshot on every rank, on the disk when this returns."""
        for rank, keeping in enumerate(self.keepings):
            value = torch.full((3,), float(number))
            keeping.keep(
                Snapshot(number=number, step=10 * number, shared={"w": value}, own={"rank": rank}, **more)
            )
            wait_until(lambda keeping=keeping: not keeping.is_busy)

    def close(self) -> None:
        for keeping in self.keepings:
            keeping.close(30)

    def parts(self, rank: int = 0) -> list[CheckpointPart]:
        return [checkpoint_part(payload) for payload in self.told[rank] if "begun" not in payload]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def wait_until(condition: Any) -> None:
    tick = threading.Event()
    for _ in range(30_000):
        if condition():
            return
        tick.wait(0.001)
    raise TimeoutError(condition)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Ranks]:
    ranks = Ranks(tmp_path)
    yield ranks
    ranks.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Ranks]:
    ranks = Ranks(tmp_path, ranks=2)
    yield ranks
    ranks.close()


def test_every_rank_tells_when_its_snapshot_was_taken_and_when_its_part_is_there(two: Ranks) -> None:
    two.keep(1)
    for rank, file in enumerate(["checkpoint-1-1.pt", "checkpoint-1-1.1.pt"]):
        assert two.told[rank][0] == {"number": 1, "begun": True}
        (part,) = two.parts(rank)
        assert (part.file, part.step) == (file, 10)
        assert part.size_bytes == (two.folder / file).stat().st_size
        assert (two.folder / file).stat().st_mode & 0o777 == 0o600
    point = ResumePoint(run_id=RUN, attempt=1, number=1, step=10, files=(two.files()[1], two.files()[0]))
    saved = read_point(point, 1, two.home)
    assert saved.own == {"rank": 1}
    assert saved.shared["w"].tolist() == [1.0, 1.0, 1.0]


def test_old_ones_are_dropped_by_every_rank(two: Ranks) -> None:
    for number in (1, 2, 3, 4):
        two.keep(number)
    assert two.files() == [
        "checkpoint-1-3.1.pt", "checkpoint-1-3.pt", "checkpoint-1-4.1.pt", "checkpoint-1-4.pt",
    ]  # fmt: skip
    for rank in (0, 1):
        assert [part.number for part in two.parts(rank) if part.dropped] == [1, 2]


def test_the_best_one_by_a_metric_stays(alone: Ranks) -> None:
    for number, loss in enumerate([3.0, 1.0, 2.0, 4.0, 5.0], start=1):
        alone.keep(number, metric={"loss": loss}, best="loss", keep_last=1)
    assert alone.files() == ["checkpoint-1-2.pt", "checkpoint-1-5.pt"]


def test_the_next_attempt_drops_what_the_last_one_left(tmp_path: Path) -> None:
    first = Ranks(tmp_path, ranks=2)
    for number, loss in enumerate([1.0, 3.0, 2.0], start=1):
        first.keep(number, metric={"loss": loss}, best="loss")
    first.close()
    (first.folder / "checkpoint-1-4.pt.part").write_bytes(b"half")
    second = Ranks(tmp_path, attempt=2, ranks=2)  # goes on from number 2: the third is given up
    second.keep(3, metric={"loss": 4.0}, best="loss")
    assert second.files() == [
        "checkpoint-1-1.1.pt", "checkpoint-1-1.pt", "checkpoint-1-2.1.pt", "checkpoint-1-2.pt",
        "checkpoint-2-3.1.pt", "checkpoint-2-3.pt",
    ]  # fmt: skip
    second.keep(4, metric={"loss": 5.0}, best="loss")
    second.close()
    assert second.files() == [
        "checkpoint-1-1.1.pt", "checkpoint-1-1.pt", "checkpoint-2-3.1.pt", "checkpoint-2-3.pt",
        "checkpoint-2-4.1.pt", "checkpoint-2-4.pt",
    ]  # fmt: skip
    assert ("checkpoint-1-2.pt", True) in [(part.file, part.dropped) for part in second.parts()]


def test_what_a_killed_rank_had_half_written_is_taken_away(two: Ranks) -> None:
    two.keep(1)
    for half in ("checkpoint-1-2.pt.part", "checkpoint-1-2.1.pt.part", "checkpoint-2-2.pt.part"):
        (two.folder / half).write_bytes(b"half")
    (two.folder / "checkpoint-1-2.dcp.part").mkdir()
    remove_halves(two.folder, attempt=1, rank=0)
    assert two.files() == [
        "checkpoint-1-1.1.pt", "checkpoint-1-1.pt", "checkpoint-1-2.1.pt.part", "checkpoint-2-2.pt.part",
    ]  # fmt: skip


def test_while_the_disk_is_slow_a_newer_snapshot_takes_the_place_of_one_that_waits(
    alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(directfile.os, "fsync", slow)
    (keeping,) = alone.keepings
    for number in (1, 2, 3, 4):
        state = torch.full((3,), float(number))
        keeping.keep(Snapshot(number=number, step=number, shared={"w": state}))
        state.fill_(-1)  # training goes on at once
        assert begun.wait(60)
    go_on.set()
    keeping.close(60)
    assert [part.number for part in alone.parts()] == [1, 4]
    assert read_file(alone.folder / "checkpoint-1-4.pt")["shared"]["w"].tolist() == [4.0, 4.0, 4.0]


def test_a_full_disk_costs_checkpoints_and_not_the_run(alone: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    alone.keep(1)
    with monkeypatch.context() as full:

        def no_space(fd: int, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(directfile.os, "write", no_space)
        alone.keep(2)
        alone.keep(3)
    assert alone.files() == ["checkpoint-1-1.pt"]
    (remark,) = alone.remarks
    assert "No space left on device" in remark
    alone.keep(4)
    assert alone.files() == ["checkpoint-1-1.pt", "checkpoint-1-4.pt"]
    assert "can be written again, from number 4" in alone.remarks[-1]


def test_on_a_disk_that_takes_one_more_the_second_last_gives_way_to_the_newest(
    alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, folder = os.write, alone.folder

    def little(fd: int, data: Any) -> int:
        there = sum(1 for path in folder.iterdir() if path.suffix == ".pt")
        if there >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(fd, data)

    monkeypatch.setattr(directfile.os, "write", little)
    for number in (1, 2, 3, 4):
        alone.keep(number)
    assert alone.files() == ["checkpoint-1-3.pt", "checkpoint-1-4.pt"]
    assert alone.remarks == []
    assert [part.number for part in alone.parts() if part.dropped] == [1, 2]


def test_a_disk_without_direct_writes_takes_checkpoints_too(
    alone: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refusing(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(directfile.os, "open", refusing)
    state = torch.arange(3_000_001.0)  # longer than the buffer, and no multiple of a block
    alone.keepings[0].keep(Snapshot(number=1, step=1, shared={"w": state}))
    alone.close()
    assert torch.equal(read_file(alone.folder / "checkpoint-1-1.pt")["shared"]["w"], state)


def test_large_and_odd_sizes_come_back_as_they_were(alone: Ranks) -> None:
    state = [torch.arange(n, dtype=torch.int64) for n in (0, 1, 511, 512, 513, 262_144, 300_001)]
    alone.keepings[0].keep(Snapshot(number=1, step=1, shared={"w": state}))
    alone.close()
    saved = read_file(alone.folder / "checkpoint-1-1.pt")["shared"]["w"]
    assert all(torch.equal(one, other) for one, other in zip(state, saved, strict=True))


def test_what_is_missing_or_damaged_is_named(alone: Ranks) -> None:
    alone.keep(1)
    point = ResumePoint(run_id=RUN, attempt=1, number=1, step=10, files=("checkpoint-1-1.pt",))
    path = alone.folder / "checkpoint-1-1.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointUnreadable, match=r"checkpoint 1 of run 2026.* is damaged"):
        read_point(point, 0, alone.home)
    path.unlink()
    with pytest.raises(CheckpointUnreadable, match="is missing on this host"):
        read_point(point, 0, alone.home)


def test_a_file_that_would_run_code_is_refused(alone: Ranks) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(alone.folder / "was here"),)

    alone.folder.mkdir(parents=True)
    torch.save(
        {"format": "jupyter_train checkpoint", "version": 1, "x": Evil()}, alone.folder / "checkpoint-1-1.pt"
    )
    with pytest.raises(CheckpointUnreadable):
        read_file(alone.folder / "checkpoint-1-1.pt")
    assert alone.files() == ["checkpoint-1-1.pt"]
