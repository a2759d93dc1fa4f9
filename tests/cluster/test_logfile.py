"""A log that several processes append to stays small."""

from __future__ import annotations

from pathlib import Path

from jupyter_train.cluster import logfile


def test_a_long_log_is_emptied_and_its_end_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab") as writer:
        writer.write(b"old " * 100)
        writer.write(b"the end")
        writer.flush()
        logfile.bound(log, max_bytes=100, kept_bytes=7)
        assert (tmp_path / "log.1").read_bytes() == b"the end"
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "log.1").stat().st_mode & 0o777 == 0o600


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"short")
    logfile.bound(log, max_bytes=100)
    logfile.bound(tmp_path / "missing", max_bytes=100)
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_the_last_lines_are_for_people(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthr\xffee\n")
    assert logfile.last_lines(log, 2) == "two\nthr\ufffdee"
    assert logfile.last_lines(tmp_path / "missing", 2) == ""
