"""Which environment this is: the key of the one local cluster that belongs to it.

Two kernels of one environment share a cluster; a ``pip install -U torch``, or an
edit of a source checkout of jupyter_train, makes another environment of it.
Nothing is imported to find out: versions come from the installed metadata.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
import sysconfig
from functools import cache
from importlib import metadata
from pathlib import Path

from jupyter_train._version import __version__

#: What kernel and workers must have alike.
PACKAGES = ("torch", "dask", "distributed", "numpy", "cloudpickle")
VERSION_LINE = re.compile(r"^Version:\s*(\S+)", re.MULTILINE)


@cache
def fingerprint() -> str:
    """16 hexadecimal digits for this host, prefix and installed versions; under 10 ms.

    Worked out once per process: a kernel keeps its cluster when a package is
    upgraded under it, since what it has imported is the old version.
    """
    return digest(
        host=socket.gethostname(),
        prefix=sys.prefix,
        versions=(__version__, *(f"{name}={version(name)}" for name in PACKAGES)),
        python=sys.version,
        source=source_stamp(package_folder()),
    )


def digest(*, host: str, prefix: str, versions: tuple[str, ...], python: str, source: str) -> str:
    """The parts of an environment as 16 hexadecimal digits."""
    text = "\0".join((host, prefix, python, source, *versions))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def version(name: str) -> str:
    """The installed version of a package, or an empty string.

    One line of the metadata is all that is wanted: `importlib.metadata.version`
    imports an e-mail parser for it, half of the time that there is.
    """
    try:
        text = metadata.distribution(name).read_text("METADATA") or ""
    except metadata.PackageNotFoundError:
        return ""
    found = VERSION_LINE.search(text)
    return found.group(1) if found else ""


def package_folder() -> Path:
    """The folder of the jupyter_train that is imported here."""
    return Path(__file__).resolve().parent.parent


def source_stamp(package: Path) -> str:
    """Where a source checkout lies and when it was last edited; empty where it is installed.

    The version of a checkout stays the same over many edits, and a cluster
    that still runs the code of an hour ago would puzzle whoever edits it.
    """
    if _is_installed(package):
        return ""
    return f"{package}@{_newest_mtime_ns(str(package))}"


def checkout_folder() -> Path | None:
    """The folder that holds jupyter_train where it is a source checkout, else None."""
    package = package_folder()
    return None if _is_installed(package) else package.parent


def _is_installed(package: Path) -> bool:
    return package.parent in {Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib")}


def _newest_mtime_ns(folder: str) -> int:
    newest = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    newest = max(newest, _newest_mtime_ns(entry.path))
            elif entry.name.endswith(".py"):
                newest = max(newest, entry.stat().st_mtime_ns)
    return newest
