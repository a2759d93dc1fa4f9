"""How large a local cluster is when nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_train.cluster.size import crowding_remark, default_workers, quota_cores, usable_cores


def test_a_default_never_has_more_workers_than_cores() -> None:
    for cores in (1, 2, 3, 4, 8, 64):
        assert 1 <= default_workers(cores) <= cores


def test_a_containers_quota_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert quota_cores(tmp_path) == 2
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize("text", ["max 100000\n", "", "-1 100000", "0 0"])
def test_no_quota_is_no_limit(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert quota_cores(tmp_path) is None


def test_the_older_files_of_a_quota_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert quota_cores(tmp_path) == 3


def test_crowding_is_said_only_where_it_is() -> None:
    assert crowding_remark(2, 2) == ""
    assert "4 ranks share the 2 cores" in crowding_remark(4, 2)
    assert crowding_remark(2, 2, asked_for=False) == ""
    assert crowding_remark(4, 2, asked_for=False) == (
        "without -n there is a rank for each of the cluster's 4 workers, more than this machine has cores: "
        "-n 2 trains no slower"
    )
