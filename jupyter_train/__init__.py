"""jupyter_train: a notebook cell trains on a cluster as easily as it runs locally.

    %load_ext jupyter_train

and ``%%train`` on top of a PyTorch cell. The Python form: ``train`` (this
rank's view of its run), ``run``, ``runs``, ``cluster``.

Importing it imports neither torch nor dask nor tornado: all names are lazy.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from jupyter_train._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from jupyter_train.cluster import Connection

__all__ = ["__version__", "cluster", "run", "runs", "train"]

_LAZY = {
    "train": ("jupyter_train.runtime.train", "train"),
    "run": ("jupyter_train.notebook.api", "run"),
    "runs": ("jupyter_train.notebook.api", "runs"),
    "cluster": ("jupyter_train.cluster", None),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LAZY[name]
    found = import_module(module)
    if attribute is None:
        return _callable(found)
    return getattr(found, attribute)


def _callable(module: ModuleType) -> ModuleType:
    """The package ``cluster``, which can also be called: ``jt.cluster("lab")`` connects."""

    class Callable(ModuleType):
        def __call__(self, name: str | None = None, *, ranks: int | None = None) -> Connection:
            from jupyter_train.cluster import open_cluster

            return open_cluster(name, ranks=ranks)

    module.__class__ = Callable
    return module


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """``%load_ext jupyter_train``: the magics, their help and their completion."""
    from jupyter_train.notebook.magics import register

    register(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """``%unload_ext jupyter_train``: the magics go; runs go on."""
    from jupyter_train.notebook.magics import unregister

    unregister(shell)
