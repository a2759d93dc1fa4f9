"""Records of the clusters that were started here: how another kernel finds one.

One JSON file per cluster, readable by its owner only. A record says which
process keeps the cluster; one whose process is gone is stale, and whoever
reads it next removes it, with the certificates and logs beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from jupyter_train.cluster.alive import Process
from jupyter_train.home import clusters_folder, private_folder

FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

State = Literal["running", "ending"]

TYPES: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "State": (str,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """One cluster that was started here."""

    name: str
    kind: str  #: "local"
    address: str  #: of the scheduler, ``tls://127.0.0.1:<port>``
    workers: int  #: how many it keeps alive
    threads: int  #: Dask threads per worker
    pid: int  #: of the supervisor
    pid_started: str  #: when that process was started, in the system's own words
    hostname: str
    fingerprint: str
    prefix: str  #: of the Python environment
    version: str  #: of jupyter_train
    created: float  #: unix time, seconds
    idle_timeout_s: float
    state: State = "running"
    format: int = FORMAT

    @property
    def process(self) -> Process:
        """The supervisor."""
        return Process(pid=self.pid, started=self.pid_started)

    @property
    def is_here(self) -> bool:
        """Whether this host runs it: a home may be shared by many."""
        return self.hostname == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether its supervisor lives. Another host's cannot be asked, and counts as dead."""
        return self.is_here and self.process.is_alive

    def folder(self, root: Path | None = None) -> Path:
        """Where its certificates and its log lie."""
        return folder_of(self.name, root)


def parse(data: Mapping[str, Any]) -> ClusterRecord:
    """A record out of JSON values; unknown fields of a newer version are left out.

    Raises:
        ValueError: a field is missing, or has another type.
    """
    known: dict[str, Any] = {}
    for one in fields(ClusterRecord):
        if one.name not in data:
            if one.name == "state":
                continue
            raise ValueError(f"the record of a cluster lacks {one.name!r}")
        value = data[one.name]
        wanted = TYPES[str(one.type)]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{one.name!r} of a cluster's record is {value!r}")
        known[one.name] = value
    if not NAME.fullmatch(known["name"]):
        raise ValueError(f"{known['name']!r} is not the name of a cluster")
    return ClusterRecord(**known)


def record_path(name: str, root: Path | None = None) -> Path:
    """The file of one cluster's record.

    Raises:
        ValueError: ``name`` could not be one; nothing else may become a path.
    """
    return clusters_folder(root) / f"{_checked(name)}.json"


def folder_of(name: str, root: Path | None = None) -> Path:
    """The folder of one cluster's certificates and log, not created."""
    return clusters_folder(root) / _checked(name)


def write(record: ClusterRecord, root: Path | None = None) -> None:
    """Put the record in place, whole or not at all, with mode 0600."""
    path = record_path(record.name, root)
    private_folder(path.parent)
    handle, temporary = tempfile.mkstemp(prefix=f".{record.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(name: str, root: Path | None = None) -> ClusterRecord | None:
    """The record of that name; None where there is none that can be read."""
    try:
        return parse(json.loads(record_path(name, root).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def remove(name: str, root: Path | None = None) -> None:
    """Remove the certificates and the log, then the record. Twice does nothing."""
    shutil.rmtree(folder_of(name, root), ignore_errors=True)
    record_path(name, root).unlink(missing_ok=True)


def live(root: Path | None = None) -> list[ClusterRecord]:
    """Clusters whose supervisor lives, oldest first; stale records of this host are removed."""
    found = []
    for path in sorted(clusters_folder(root).glob("*.json")):
        if not NAME.fullmatch(path.stem):
            continue
        record = read(path.stem, root)
        if record is not None and record.is_alive:
            found.append(record)
        elif record.is_here if record is not None else not _is_kept_by_another_version(path):
            _remove_if_unchanged(path, record, root)
    return sorted(found, key=lambda record: record.created)


def _is_kept_by_another_version(path: Path) -> bool:
    """Whether a record that this version cannot read names a process that lives."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return bool(Process(pid=int(data["pid"]), started=str(data["pid_started"])).is_alive)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _remove_if_unchanged(path: Path, seen: ClusterRecord | None, root: Path | None) -> None:
    """Remove a stale record, unless somebody is starting a cluster of that name just now."""
    from jupyter_train.cluster.lock import start_lock

    with start_lock(path.stem, root=root, wait_s=0) as locked:
        if locked and read(path.stem, root) == seen:
            remove(path.stem, root)


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a cluster")
    return name
