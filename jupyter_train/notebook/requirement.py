"""A module that a worker lacks: which package has it, and how that gets there.

The kernel knows what the notebook has installed, the worker says which Python
it runs: together they are a command to type.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any

from jupyter_train.notebook.bundle import plain


def requirement(module: str) -> str | None:
    """``scikit-learn==1.5.2`` for ``sklearn.svm``, as it is installed here; None where nothing here has it."""
    top = module.partition(".")[0]
    names = metadata.packages_distributions().get(top)  # reads every package's list of files: some 100 ms
    if names:
        public, _, _ = metadata.version(names[0]).partition("+")  # "+cpu" is not in every index
        return f"{names[0]}=={public}"
    return None


def install_advice(
    missing: Mapping[str, Any],
    workers: Iterable[str],
    *,
    find: Callable[[str], str | None] = requirement,
) -> str:
    """What to do about the module ``missing["module"]``.

    Args:
        missing: of the error's payload.
        workers: addresses of those that said so.
        find: the package that brings a module.
    """
    module = plain(str(missing.get("module", "")), 80)
    python = plain(str(missing.get("python") or "python"), 200)
    those = ", ".join(plain(worker, 60) for worker in dict.fromkeys(workers))
    where = f"Worker {those}" if those else "The worker"
    wanted = find(module)
    if wanted is None and not _is_here(module):
        return (
            f"No module {module} is installed in the notebook's environment either: check its name, or install it in both. "
            f"{where} runs {python}."
        )
    if python == sys.executable or wanted is None:
        return f"{where} does not find {module}: it runs {python}, and this notebook's own folders are searched there as well."
    return (
        f"{where} has no {module}. Install it there:  {python} -m pip install {wanted}  (on all workers of a Dask "
        f"cluster:  client.register_plugin(distributed.PipInstall(['{wanted}'])) ), and run the cell again."
    )


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
