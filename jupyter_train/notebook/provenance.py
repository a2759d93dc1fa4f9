"""What is put on record of a run besides its cell: where its code comes from, and with what it was run."""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_train._version import __version__
from jupyter_train.notebook.git import GitLook

if TYPE_CHECKING:
    from jupyter_train.record import RunView
    from jupyter_train.transport.capture import Capture

_PACKAGES = ("torch", "numpy", "distributed")


def notebook_folder(notebook: str, cwd: str) -> str:
    """The folder whose commit counts: the notebook's, where that is known, else the kernel's."""
    path = Path(notebook)
    return str(path.parent) if notebook and path.is_absolute() and path.exists() else cwd


def provenance(git: GitLook, captured: Capture) -> dict[str, Any]:
    """What :attr:`RunSpec.provenance` holds. JSON values only; nothing of the environment's variables."""
    from jupyter_train.transport.definitions import definition_texts, module_texts

    found: dict[str, Any] = {
        "versions": versions(),
        "hostname": socket.gethostname(),
        "definitions": definition_texts(captured.definitions),
        "modules": module_texts(captured.modules),
    }
    if commit := git.result():
        found["git"] = dict(commit)
    return found


def versions() -> dict[str, str]:
    """Of this kernel's packages, by name. Imports nothing."""
    found = {"python": platform.python_version(), "jupyter_train": __version__}
    for name in _PACKAGES:
        imported = getattr(sys.modules.get(name), "__version__", "")
        found[name] = str(imported or _installed(name))
    return {name: version for name, version in found.items() if version}


@cache
def _installed(name: str) -> str:
    from jupyter_train.cluster.fingerprint import version

    return version(name)


def on_record(view: RunView) -> dict[str, Any]:
    """Everything that is on record of how a run came about."""
    spec = view.spec
    if spec is None:
        return {}
    return {
        "cell": spec.source,
        "params": dict(spec.params),
        "notebook": spec.notebook,
        "cluster": spec.cluster,
        **(spec.provenance if isinstance(spec.provenance, Mapping) else {}),
        "machines": {rank: dict(machine) for rank, machine in sorted(view.machines.items())},
    }
