"""Which commit the notebook's folder is at: asked of ``git`` beside everything else, and never waited for for long."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LONGEST_S = 2.0  #: that a look goes on
WAIT_S = 0.5  #: that a run's start waits for one, once for each folder in which it is slow
SOON_S = 0.2  #: after which the commit is asked for by itself

# Set by git for its hooks: an editor that one has opened would have us look at another repository.
_NOT_OURS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
_slow: set[str] = set()  #: folders in which git took too long


class GitLook:
    """A look at one folder, in a thread ``jupyter-train-git`` that ends by itself."""

    def __init__(self, folder: str, *, command: str = "git") -> None:
        self._folder = folder
        self._command = command
        self._until = time.monotonic() + LONGEST_S
        self._found: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._look, name="jupyter-train-git", daemon=True)
        self._thread.start()

    def result(self) -> Mapping[str, Any]:
        """``commit``, ``branch`` ("" where none is checked out, or not known) and ``dirty``; nothing where there is no git.

        ``dirty`` says whether tracked files differ from the commit; None: it took too long to find out.
        """
        self._thread.join(0 if self._folder in _slow else WAIT_S)
        if self._thread.is_alive():
            _slow.add(self._folder)
        return dict(self._found)

    def _look(self) -> None:
        if not any((folder / ".git").exists() for folder in _upwards(self._folder)):
            return  # without a process, which costs a few milliseconds
        status = self._ask("status", "--porcelain=v2", "--branch", "--untracked-files=no")
        if status is None:
            return
        try:
            answer = status.communicate(timeout=SOON_S)[0]
        except (
            subprocess.TimeoutExpired
        ):  # a large repository, or a slow disk: the commit alone comes at once
            self._found = self._commit()
            answer = self._rest_of(status)
        if status.returncode == 0:
            self._found = read_status(answer.decode(errors="replace")) or self._found

    def _commit(self) -> dict[str, Any]:
        asked = self._ask("rev-parse", "--verify", "HEAD")
        answer = self._rest_of(asked).decode(errors="replace").strip() if asked is not None else ""
        return {"commit": answer, "branch": "", "dirty": None} if answer else {}

    def _rest_of(self, process: subprocess.Popen[bytes]) -> bytes:
        """What it still writes, until its time is over."""
        try:
            return process.communicate(timeout=max(0.0, self._until - time.monotonic()))[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return b""

    def _ask(self, *words: str) -> subprocess.Popen[bytes] | None:
        """Git at work; None where there is none."""
        environ = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        try:
            return subprocess.Popen(
                [self._command, "-C", self._folder, "-c", "core.fsmonitor=false", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            )
        except (OSError, ValueError):
            return None


def read_status(text: str) -> dict[str, Any]:
    """What ``git status --porcelain=v2 --branch`` says; nothing where there is no commit yet."""
    lines = text.splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch.") and " " in line[2:])
    commit, branch = heads.get("branch.oid", ""), heads.get("branch.head", "")
    if not commit or commit == "(initial)":
        return {}
    changes = [line for line in lines if line and not line.startswith("# ")]
    return {"commit": commit, "branch": "" if branch == "(detached)" else branch, "dirty": bool(changes)}


def _upwards(folder: str) -> list[Path]:
    path = Path(folder)
    return [path, *path.parents]
