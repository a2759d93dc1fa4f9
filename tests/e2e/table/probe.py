"""Before and after each cell of the table, in the kernel: a clean notebook, and what the cell made of it.

Called by the test through ``client.execute`` with an import that binds no name.
"""

from __future__ import annotations

import logging
import os
import pickle
import random
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.e2e.table.describe import Description, digest

_INPUTS = re.compile(r"_i*\d*")
_IPYTHONS = {"In", "Out", "_", "__", "___", "_dh", "_ih", "_oh", "exit", "quit", "get_ipython", "open"}


class _State:
    """What the probe remembers between two calls."""

    before: Description | None = None
    surroundings: dict[str, Any] = {}  # noqa: RUF012  # one state, of one process
    folder = ""
    modules: frozenset[str] = frozenset()
    fresh: tuple[
        Any, ...
    ] = ()  #: warnings' filters, root logger's handlers, compiler's flags of a fresh kernel


def _shell() -> Any:
    from IPython import get_ipython

    return get_ipython()


def begin(folder: str) -> None:
    """An empty notebook in ``folder``, all global state as in a fresh kernel."""
    import matplotlib.pyplot as plt
    import numpy as np
    import torch

    shell = _shell()
    shell.reset(new_session=False)
    for name in _State.modules and set(sys.modules) - _State.modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(_State.folder):
            del sys.modules[name]
    _State.folder = folder
    _State.before = None
    os.chdir(folder)
    sys.path_importer_cache.clear()
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.set_printoptions(profile="default")
    torch.manual_seed(11)
    np.random.seed(11)
    np.set_printoptions(precision=8, suppress=False, threshold=1000, linewidth=75)
    random.seed(11)
    plt.close("all")
    root = logging.getLogger()
    _State.fresh = _State.fresh or (
        list(warnings.filters),
        list(root.handlers),
        root.level,
        shell.compile.flags,
    )
    warnings.resetwarnings()
    warnings.filters[:] = _State.fresh[0]
    root.handlers[:] = _State.fresh[1]
    root.setLevel(_State.fresh[2])
    shell.compile.flags = _State.fresh[3]
    plt.rcdefaults()
    shell.enable_matplotlib("inline")
    for name in [name for name in os.environ if name.startswith("CELL_")]:
        del os.environ[name]
    _State.modules = frozenset(sys.modules)


def mark() -> None:
    """The cell comes next: remembers which objects there are."""
    _State.before = _describe(None)
    _State.surroundings = _surroundings()


def take(path: str) -> None:
    """Write what the notebook holds now to ``path``."""
    assert _State.before is not None
    after = _describe(_State.before)
    changed = {
        # What a library does when it is first imported is its own.
        name: value if value != _State.surroundings[name] else "as before"
        for name, value in _surroundings().items()
    }
    leaves = {**after.leaves, **changed}
    Path(path).write_bytes(pickle.dumps(leaves))


def _describe(before: Description | None) -> Description:
    names = _shell().user_ns
    described = Description(names, before.paths if before is not None else None, folder=_State.folder)
    for name in sorted(names):
        if name not in _IPYTHONS and not _INPUTS.fullmatch(name) and not name.startswith("__"):
            described.add(name, names[name])
    last = names.get("_", "")
    if not (isinstance(last, str) and last == ""):
        described.add("_", last)
    return described


def _surroundings() -> dict[str, Any]:
    """What a cell can change outside the namespace."""
    import matplotlib.pyplot as plt
    import numpy as np
    import torch

    return {
        "random state.torch": digest(bytes(torch.get_rng_state().tolist())),
        "random state.numpy": digest(pickle.dumps(np.random.get_state())),
        "random state.random": digest(repr(random.getstate()).encode()),
        "process.cwd": os.getcwd().replace(_State.folder, "<folder>"),
        "process.environ": ", ".join(
            sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("CELL_"))
        ),
        "process.sys.path": ", ".join(p for p in sys.path if "of_the_cell" in p),
        "settings.torch default dtype": str(torch.get_default_dtype()),
        "settings.torch grad mode": str(torch.is_grad_enabled()),
        "settings.torch print": str(torch._tensor_str.PRINT_OPTS.precision),
        "settings.numpy print": str(np.get_printoptions()["precision"]),
        "settings.figures": str(plt.get_fignums()),
        "settings.logging": f"{logging.getLogger().level} {len(logging.getLogger().handlers)}",
        "settings.argv": str(len(sys.argv)),
    }
