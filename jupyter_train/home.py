"""Where jupyter_train keeps its files: one folder per user, readable by its owner only.

    <home>/journals/<controller>.sqlite   the truth of the runs of one controller
    <home>/runs/<run id>/                 results, spools of rank events, artifacts
    <home>/content/<xx>/<key>             captured data by its hash
    <home>/sources/<key>/                 local modules of notebooks, unpacked for ranks
    <home>/clusters/<name>.json           records of clusters started here
    <home>/clusters/<name>/               their certificates and logs

``JUPYTER_TRAIN_HOME`` moves all of it. Importable from every layer: standard
library only, and nothing is created by asking for a path.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


def home() -> Path:
    """The user's folder, not created."""
    given = os.environ.get("JUPYTER_TRAIN_HOME")
    if given:
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("jupyter-train")


def private_folder(path: Path) -> Path:
    """``path``, created with mode 0700 where it is missing (parents too)."""
    if not path.is_dir():
        if path.parent != path and not path.parent.is_dir():
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def journals_folder(root: Path | None = None) -> Path:
    """Folder of journals, one SQLite file per controller."""
    return (root or home()) / "journals"


def clusters_folder(root: Path | None = None) -> Path:
    """Folder of cluster records."""
    return (root or home()) / "clusters"


def content_folder(root: Path | None = None) -> Path:
    """Folder of captured data, addressed by hash."""
    return (root or home()) / "content"


def run_folder(run_id: str, root: Path | None = None) -> Path:
    """Folder of one run's files.

    Raises:
        ValueError: ``run_id`` is not the id of a run; nothing else may become a path.
    """
    if not RUN_ID.fullmatch(run_id):
        raise ValueError(f"{run_id!r} is not a run id")
    return (root or home()) / "runs" / run_id
