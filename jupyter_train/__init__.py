"""jupyter_train: a notebook cell trains on a cluster as easily as it runs locally.

    %load_ext jupyter_train

and ``%%train`` on top of a PyTorch cell. The Python form: ``train`` (this
rank's view of its run), ``run``, ``runs``, ``compare``, ``cluster``, and for functions
``submit`` and ``on_cluster``.

Importing it imports neither torch nor dask nor tornado: all names are lazy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyter_train._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


__all__ = ["__version__", "cluster", "compare", "on_cluster", "run", "runs", "submit", "train"]

_LAZY = {
    "train": ("jupyter_train.runtime.train", "train"),
    "run": ("jupyter_train.notebook.api", "run"),
    "runs": ("jupyter_train.notebook.api", "runs"),
    "compare": ("jupyter_train.notebook.api", "compare"),
    "submit": ("jupyter_train.notebook.function", "submit"),
    "on_cluster": ("jupyter_train.notebook.function", "on_cluster"),
    "cluster": ("jupyter_train.cluster", None),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LAZY[name]
    found = import_module(module)
    return found if attribute is None else getattr(found, attribute)


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
