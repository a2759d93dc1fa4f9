"""The commit of a folder. Git is the real one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jupyter_train.notebook import git
from jupyter_train.notebook.git import GitLook


@pytest.fixture(autouse=True)
def waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may be busy."""
    monkeypatch.setattr(git, "WAIT_S", 20.0)
    monkeypatch.setattr(git, "LONGEST_S", 20.0)
    monkeypatch.setattr(git, "_slow", set())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    _git(folder, "init", "-q", "-b", "trunk")
    _git(folder, "add", ".")
    _git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    return folder


def script(folder: Path, text: str) -> str:
    file = folder / "slow-git"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return str(file)


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_the_commit_and_whether_tracked_files_differ_from_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook
    (repository / "new.txt").write_text("not tracked")
    clean = GitLook(str(repository)).result()
    (repository / "a.py").write_text("x = 2\n")
    dirty = GitLook(str(repository)).result()
    monkeypatch.delenv("GIT_DIR")
    commit = _git(repository, "rev-parse", "HEAD").strip()
    assert clean == {"commit": commit, "branch": "trunk", "dirty": False}
    assert dirty == {"commit": commit, "branch": "trunk", "dirty": True}


def test_without_a_repository_a_commit_or_git_nothing_is_said(tmp_path: Path) -> None:
    assert GitLook(str(tmp_path)).result() == {}
    assert GitLook(str(tmp_path / "missing")).result() == {}
    _git(tmp_path, "init", "-q")
    assert GitLook(str(tmp_path)).result() == {}
    assert GitLook(str(tmp_path), command=str(tmp_path / "no-git")).result() == {}


def test_a_git_that_hangs_is_waited_for_once_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "WAIT_S", 0.05)
    monkeypatch.setattr(git, "LONGEST_S", 0.5)
    slow = script(tmp_path, "exec sleep 60")
    _git(tmp_path, "init", "-q")
    looks = [GitLook(str(tmp_path), command=slow) for _ in range(2)]
    assert [look.result() for look in looks] == [{}, {}]
    assert str(tmp_path) in git._slow
    for look in looks:
        look._thread.join(20)
        assert not look._thread.is_alive()


def test_where_only_the_changes_take_long_the_commit_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "SOON_S", 0.01)
    slow = script(repository, 'case "$*" in *status*) sleep 0.5; exit 1;; esac\nexec git "$@"')
    commit = _git(repository, "rev-parse", "HEAD").strip()
    assert GitLook(str(repository), command=slow).result() == {"commit": commit, "branch": "", "dirty": None}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("# branch.oid (initial)\n# branch.head main\n", {}),
        ("# branch.oid ab12\n# branch.head (detached)\n", {"commit": "ab12", "branch": "", "dirty": False}),
        (
            "# branch.oid ab12\n# branch.head a b\n1 .M N...\n",
            {"commit": "ab12", "branch": "a b", "dirty": True},
        ),
        ("", {}),
    ],
)
def test_a_status_is_read(said: str, found: dict[str, object]) -> None:
    assert git.read_status(said) == found
