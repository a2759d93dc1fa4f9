"""Names of the notebook's namespace that are IPython's or ours, not the user's."""

from __future__ import annotations

import re
import sys
from typing import Any

_IPYTHON = re.compile(
    r"In|Out|get_ipython|exit|quit|_+|_i+|_i?\d+|_[iod]h|_exit_code|__(?!(?:main|file)__).*__"
)


def is_our_train(kind: type) -> bool:
    """Whether objects of ``kind`` are the ``train`` that every process has its own of."""
    return kind.__module__ == "jupyter_train.runtime.train" and kind.__qualname__ == "Train"


def is_ipythons(name: str) -> bool:
    """Whether IPython or Python itself keeps something under ``name``, or may do so."""
    return name == "display" or bool(_IPYTHON.fullmatch(name))


_HISTORY = re.compile(r"In|Out|_{1,3}|_i{1,3}|_i?\d+|_[iod]h")


def is_history(name: str) -> bool:
    """Whether IPython keeps earlier cells or their values under ``name``: a cell may read them, never return them."""
    return bool(_HISTORY.fullmatch(name))


def is_users(name: str, value: Any) -> bool:
    """Whether ``name`` may travel with ``value``: neither IPython's own nor ``train``."""
    if _IPYTHON.fullmatch(name):
        return False
    if name == "train" and is_our_train(type(value)):
        return False
    if name == "open":
        # IPython puts a guarded open() into the namespace; a rank has the real one.
        shell = sys.modules.get("IPython.core.interactiveshell")
        return shell is None or value is not getattr(shell, "_modified_open", None)
    return True
