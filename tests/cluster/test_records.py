"""How one kernel finds what another has started."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jupyter_train.cluster import records
from jupyter_train.cluster.alive import this_process
from jupyter_train.cluster.records import ClusterRecord


def mine(record: ClusterRecord, **changes: object) -> ClusterRecord:
    """The record of a cluster that this process keeps."""
    me = this_process()
    return replace(record, pid=me.pid, pid_started=me.started, **changes)  # type: ignore[arg-type]


def test_what_was_written_is_read(record: ClusterRecord) -> None:
    records.write(record)
    assert records.read(record.name) == record


def test_only_its_owner_can_read_it(record: ClusterRecord, home: Path) -> None:
    records.write(record)
    path = records.record_path(record.name)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_a_living_cluster_is_listed_oldest_first(record: ClusterRecord) -> None:
    records.write(mine(record, name="b", created=1.0))
    records.write(mine(record, name="a", created=2.0))
    assert [one.name for one in records.live()] == ["b", "a"]


def test_a_dead_one_is_removed_with_its_files(record: ClusterRecord, home: Path) -> None:
    records.write(record)
    folder = record.folder()
    folder.mkdir()
    (folder / "key.pem").touch()
    assert records.live() == []
    assert list((home / "clusters").iterdir()) == []


def test_the_same_number_of_another_process_does_not_keep_it_alive(record: ClusterRecord) -> None:
    records.write(replace(mine(record), pid_started="another boot:1"))
    assert records.live() == []


def test_another_hosts_record_is_neither_used_nor_removed(record: ClusterRecord) -> None:
    records.write(mine(record, hostname="elsewhere"))
    assert records.live() == []
    assert records.record_path(record.name).exists()


def test_a_damaged_record_is_removed(home: Path, record: ClusterRecord) -> None:
    records.write(record)
    records.record_path(record.name).write_text("{", encoding="utf-8")
    assert records.read(record.name) is None
    assert records.live() == []
    assert not records.record_path(record.name).exists()


def test_a_living_cluster_whose_record_is_of_another_format_is_left_alone(record: ClusterRecord) -> None:
    data = asdict(mine(record))
    del data["fingerprint"]
    records.write(record)
    records.record_path(record.name).write_text(json.dumps(data), encoding="utf-8")
    assert records.live() == []
    assert records.record_path(record.name).exists()


def test_fields_of_a_newer_version_are_ignored(record: ClusterRecord) -> None:
    assert records.parse({**asdict(record), "gpus": 8}) == record


@pytest.mark.parametrize("change", [{"pid": "1"}, {"pid": True}, {"name": "../../etc"}, {"created": None}])
def test_what_is_no_record_is_refused(record: ClusterRecord, change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        records.parse({**asdict(record), **change})


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "x" * 65])
def test_only_a_name_becomes_a_path(name: str) -> None:
    with pytest.raises(ValueError):
        records.record_path(name)
    with pytest.raises(ValueError):
        records.folder_of(name)


def test_removing_twice_does_nothing(record: ClusterRecord) -> None:
    records.remove(record.name)
    records.remove(record.name)
