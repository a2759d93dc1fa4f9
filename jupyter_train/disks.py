"""Which folders lie on a network disk, where SQLite is slow at best and readers on other hosts see half a journal.

Standard library only; read by :mod:`jupyter_train.home`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")

#: File systems of Linux whose files another host may change, by the name that mountinfo has for them.
_OVER_NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "coda",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "beegfs_nodev",
        "pvfs2",
        "orangefs",
        "gfs2",
        "ocfs2",
        "glusterfs",
        "panfs",
        "wekafs",
        "vastfs",
        "9p",
        "davfs",
    ]
)
#: What serves files of this host through FUSE. Any other of that kind (sshfs, s3fs, rclone, …) serves another's.
_FUSE_OF_HERE = frozenset(
    [
        "fuse.fuse-overlayfs",
        "fuse.overlayfs",
        "fuse.mergerfs",
        "fuse.bindfs",
        "fuse.gocryptfs",
        "fuse.encfs",
        "fuse.ecryptfs",
        "fuse.cryfs",
        "fuse.lxcfs",
        "fuse.ntfs",
        "fuse.ntfs-3g",
        "fuse.exfat",
        "fuse.portal",
    ]
)


def network_disk(path: Path) -> str:
    """Kind of the network disk that ``path`` (which need not exist) lies on; "" for a local one, or where nobody tells."""
    try:
        kind = kind_of(path.resolve(), _mounted())
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return ""
    return kind if is_over_network(kind) else ""


def is_over_network(kind: str) -> bool:
    """Whether files of that kind of disk come over a network; pure."""
    return kind in _OVER_NETWORK or (kind.startswith("fuse.") and kind not in _FUSE_OF_HERE)


def kind_of(path: Path, mounts: tuple[tuple[Path, str], ...]) -> str:
    """Kind of the disk that ``path`` lies on: of the innermost mount, the newest where two are in one place; pure."""
    found, depth = "", -1
    for point, kind in mounts:
        if len(point.parts) >= depth and path.is_relative_to(point):
            found, depth = kind, len(point.parts)
    return found


def mounts_in(mountinfo: str) -> Iterator[tuple[Path, str]]:
    """Where something is mounted, and of what kind, oldest first; pure. See proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) >= 5 and after:
            point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4])
            yield Path(point), after.split(" ")[0]


@lru_cache(maxsize=1)
def _mounted() -> tuple[tuple[Path, str], ...]:
    """Once per process: a journal does not move because something is mounted later."""
    return tuple(mounts_in(_MOUNTS.read_text(errors="surrogateescape")))
