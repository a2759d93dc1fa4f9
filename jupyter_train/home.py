"""Where jupyter_train keeps its files: one folder per user, readable by its owner only.

    <home>/journals/<controller>.sqlite   the truth of the runs of one controller
    <home>/runs/<run id>/                 results, spools of rank events, artifacts
    <home>/content/<xx>/<key>             captured data by its hash
    <home>/sources/<key>/                 local modules of notebooks, unpacked for ranks
    <home>/clusters/<name>.json           records of clusters started here
    <home>/clusters/<name>/               their certificates and logs

``JUPYTER_TRAIN_HOME`` moves all of it. Where it lies on a network disk, journals
lie on a local one (``JUPYTER_TRAIN_JOURNALS`` names the folder). Importable from every layer: standard
library only, and nothing is created by asking for a path.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from jupyter_train.disks import network_disk

logger = logging.getLogger("jupyter_train")

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


def home() -> Path:
    """The user's folder, not created."""
    given = os.environ.get("JUPYTER_TRAIN_HOME")
    if given:
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("jupyter-train")


def private_folder(path: Path) -> Path:
    """``path``, created with mode 0700 where it is missing (parents too).

    One below the home that others may enter is closed to them, and a warning
    says so: what lies there is read back into notebooks. The home itself, and
    what lies elsewhere, may be the user's for other ends, and is left alone.
    """
    if not path.is_dir():
        if path.parent != path and not path.parent.is_dir():
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    elif path.stat().st_mode & 0o077 and path != home() and path.is_relative_to(home()):
        _close(path)
    return path


def _close(path: Path) -> None:
    """Have nobody else enter the folder at ``path``, if it is ours."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    try:
        path.chmod(0o700)
    except OSError:
        return
    logger.warning("others could enter %s (mode %03o): it is yours alone now", path, found.st_mode & 0o777)


def journals_folder(root: Path | None = None) -> Path:
    """Folder of journals, one SQLite file per controller: below the home, or on a local disk where that lies on none."""
    given = os.environ.get("JUPYTER_TRAIN_JOURNALS")
    if given:
        return Path(given).expanduser().absolute()
    base = root or home()
    if network_disk(base):
        for folder in _local_folders(base):
            if not network_disk(folder) and _may_be_ours(folder):
                return folder
    return base / "journals"


def journals_folders(root: Path | None = None) -> list[Path]:
    """Every folder in which journals may lie: that of :func:`journals_folder`, and where they were before."""
    return list(dict.fromkeys((journals_folder(root), (root or home()) / "journals")))


def _local_folders(base: Path) -> Iterator[Path]:
    """Where journals may lie whose home is elsewhere, best first. Several homes do not share one."""
    from platformdirs import user_state_path

    name = hashlib.sha256(os.fsencode(base)).hexdigest()[:12]
    yield user_state_path("jupyter-train") / "journals" / name
    yield Path("/var/tmp") / f"jupyter-train-{os.getuid()}-{name}"


def _may_be_ours(folder: Path) -> bool:
    """Whether ``folder`` is missing, or nobody else has made it: in a shared folder anybody may have taken its name."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


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
