"""CPU seconds are those of one side, whole, and of nobody else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import meter
from benchmarks.kernel import HOME
from benchmarks.meter import Meter, Process, Stretch, members, read_processes, read_stretch


def process(pid: int, parent: int, *, marked: bool = False) -> Process:
    return Process(pid=pid, parent=parent, cpu_s=1.0, is_marked=marked)


def test_descendants_of_a_marked_process_belong_to_it() -> None:
    kernel, child, grandchild = process(10, 1, marked=True), process(11, 10), process(12, 11)
    assert members([kernel, child, grandchild, process(20, 1)]) == [kernel, child, grandchild]


def test_a_detached_process_belongs_by_its_mark() -> None:
    supervisor = process(30, 1, marked=True)
    assert members([process(1, 0), supervisor]) == [supervisor]


def write_process(proc: Path, pid: int, *, stat: str, environ: bytes) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(stat)
    (folder / "environ").write_bytes(environ)


def test_times_and_marks_are_read_whatever_the_command_is_called(tmp_path: Path) -> None:
    tail = "S 7 1 1 0 -1 0 0 0 0 0 100 20 30 4 20 0 5 0 99 0 0"
    write_process(tmp_path, 42, stat=f"42 (a ) b) {tail}", environ=b"A=1\0JUPYTER_TRAIN_HOME=/h\0")
    write_process(tmp_path, 43, stat=f"43 (python) {tail}", environ=b"JUPYTER_TRAIN_HOME=/h2\0")
    (tmp_path / "self").mkdir()
    read = {p.pid: p for p in read_processes("JUPYTER_TRAIN_HOME=/h", tmp_path)}
    assert read[42].parent == 7
    assert read[42].cpu_s == pytest.approx(154 / os.sysconf("SC_CLK_TCK"))
    assert read[42].is_marked
    assert not read[43].is_marked


def test_a_process_that_ends_meanwhile_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "99").mkdir()
    assert read_processes("X=1", tmp_path) == []


def test_only_the_stretch_between_first_and_last_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 104.0])
    cpu = iter([7.0, 13.0])
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv(HOME, "/h")
    monkeypatch.setattr(meter.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(
        meter,
        "read_processes",
        lambda mark: [Process(pid=1, parent=0, cpu_s=next(cpu), is_marked=True)],
    )
    file = tmp_path / "stretch.json"
    counter = Meter(str(file), 2, 12)
    for _ in range(15):
        counter.step()
    stretch = read_stretch(file)
    assert stretch == Stretch(steps=10, wall_s=4.0, cpu_s=6.0, processes=1)
    assert stretch.steps_per_s == 2.5
    assert stretch.cpu_s_per_step == pytest.approx(0.6)
    assert not file.exists()


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv(HOME, "/h")
    counter = Meter(str(tmp_path / "stretch.json"), 1, 2)
    counter.step()
    counter.step()
    assert list(tmp_path.iterdir()) == []


def test_what_a_stretch_says_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"steps": 2, "wall_s": 1.0, "cpu_s": 0.5, "processes": 3}))
    assert read_stretch(file).processes == 3
