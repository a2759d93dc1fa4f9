"""Journals lie on local disks, and the folders of a home are their owner's."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from jupyter_train import disks
from jupyter_train import home as homes
from jupyter_train.disks import is_over_network, kind_of, mounts_in, network_disk
from jupyter_train.home import journals_folder, journals_folders, private_folder
from jupyter_train.store import JournalWriter, Store
from tests.store.conftest import finished, story

__all__ = ["story"]  # the fixture

MOUNTINFO = """\
22 28 0:21 / /proc rw,nosuid shared:14 - proc proc rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 28 0:40 / /home rw,relatime shared:2 master:1 - nfs4 server:/export/home rw,vers=4.2
41 40 8:2 / /home/ada/fast\\040disk rw - xfs /dev/sdb1 rw
42 28 0:42 / /mnt/far rw - fuse.sshfs ada@far:/data rw
43 28 0:43 / /mnt/both rw - ext4 /dev/sdc1 rw
44 43 0:44 / /mnt/both rw - cifs //server/share rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ada/.local/share/jupyter-train", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/ada", "ext4"),
        ("/home/ada/fast disk/jt", "xfs"),
        ("/mnt/far/jt", "fuse.sshfs"),
        ("/mnt/both/jt", "cifs"),
        ("/tmp", "ext4"),
    ],
)
def test_the_innermost_and_newest_mount_counts(path: str, kind: str) -> None:
    assert kind_of(Path(path), tuple(mounts_in(MOUNTINFO))) == kind


@pytest.mark.parametrize(
    ("kind", "over_network"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("cifs", True),
        ("lustre", True),
        ("fuse.sshfs", True),
        ("fuse.rclone", True),
    ]
    + [
        (kind, False)
        for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse.gocryptfs", "fuseblk", "")
    ],
)
def test_kinds_of_disks(kind: str, over_network: bool) -> None:
    assert is_over_network(kind) is over_network


def test_this_machines_root_is_a_disk_of_a_known_kind() -> None:
    assert kind_of(Path("/"), disks._mounted()) != ""
    assert network_disk(Path("/no/such/folder")) == network_disk(Path("/"))


@pytest.fixture
def network_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home on a network disk, with a local disk at ``tmp_path``."""
    monkeypatch.setattr(homes, "network_disk", lambda path: "nfs4" if path.is_relative_to(home) else "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return home


def test_journals_of_a_home_on_a_network_disk_lie_on_a_local_one(
    network_home: Path, tmp_path: Path, story: object
) -> None:
    run = finished(story())  # type: ignore[operator]
    old = JournalWriter(network_home / "journals" / "old.sqlite")
    old.append(run.run_id, run.events)
    old.close()
    other = finished(story(1))  # type: ignore[operator]
    writer = JournalWriter(private_folder(journals_folder()) / "new.sqlite")
    writer.append(other.run_id, other.events)
    writer.close()
    assert writer.path.is_relative_to(tmp_path / "state")
    assert stat.S_IMODE(writer.path.parent.stat().st_mode) == 0o700
    assert len(Store().runs()) == 2, "what was written before stays readable"
    Store().delete(run.run_id, other.run_id)
    assert not old.path.exists()
    assert not writer.path.exists()


def test_two_homes_on_network_disks_have_two_folders(network_home: Path) -> None:
    assert journals_folder(network_home / "a") != journals_folder(network_home / "b")


def test_a_folder_that_somebody_else_may_write_to_is_not_used(network_home: Path) -> None:
    first = journals_folder()
    first.mkdir(parents=True)
    first.chmod(0o777)
    second = journals_folder()
    assert second != first
    first.chmod(0o700)
    assert journals_folder() == first
    first.rmdir()
    first.symlink_to("/")
    assert journals_folder() == second


def test_where_there_is_no_local_disk_journals_stay_in_the_home(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "network_disk", lambda path: "nfs4")
    assert journals_folder() == home / "journals"


def test_the_folder_of_journals_can_be_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_TRAIN_JOURNALS", str(tmp_path / "mine"))
    assert journals_folders() == [tmp_path / "mine", home / "journals"]


def test_a_folder_below_the_home_that_others_could_enter_is_closed_and_named(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = home / "runs"
    folder.mkdir(mode=0o777)
    folder.chmod(0o775)
    private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert said.getMessage() == f"others could enter {folder} (mode 775): it is yours alone now"
    private_folder(folder)
    assert len(caplog.records) == 1


def test_folders_that_are_not_only_ours_keep_their_mode(home: Path, tmp_path: Path) -> None:
    elsewhere, linked = tmp_path / "project", home / "content"
    elsewhere.mkdir()
    elsewhere.chmod(0o775)
    linked.symlink_to(elsewhere)
    home.chmod(0o755)
    for folder in (home, elsewhere, linked):
        private_folder(folder)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o775
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


def test_new_folders_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (made, made.parent)] == [0o700, 0o700]
