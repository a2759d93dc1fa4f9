"""How large a local cluster is when nobody says: cores, and how they are shared out."""

from __future__ import annotations

import os
from pathlib import Path

MAX_DEFAULT_WORKERS = 4


def default_workers(cores: int) -> int:
    """Workers of a local cluster on a machine with so many cores."""
    return max(1, min(cores, MAX_DEFAULT_WORKERS))


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    return max(1, min(cores, quota_cores(cgroup) or cores))


def quota_cores(cgroup: Path) -> int | None:
    """Whole cores of a container's quota, rounded up; None without one."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(quota) <= 0 or int(period) <= 0:
        return None
    return -(-int(quota) // int(period))


def crowding_remark(ranks: int, cores: int, *, asked_for: bool = True) -> str:
    """What to say of more ranks than cores; empty where there is nothing to say.

    Args:
        asked_for: somebody gave that number; else it is the cluster's, which an earlier ``-n`` may have made large.
    """
    if ranks <= cores:
        return ""
    if not asked_for:
        return (
            f"without -n there is a rank for each of the cluster's {ranks} workers, more than this machine has cores: "
            f"-n {cores} trains no slower"
        )
    plural = "" if cores == 1 else "s"
    return (
        f"{ranks} ranks share the {cores} core{plural} of this machine: more ranks than cores train no faster"
    )
