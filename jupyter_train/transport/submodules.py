"""Submodules that code reaches through a module: ``sklearn.datasets`` after ``import sklearn``.

In the notebook some other cell imported the submodule, so that it is an
attribute of its package. A fresh process has it only if it imports it too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Set


def reached_submodules(modules: Iterable[str], words: Set[str]) -> list[str]:
    """Submodules of ``modules`` that are imported here and whose names are among ``words``.

    Args:
        modules: full names of the modules that travel.
        words: every name and attribute in the code that travels.
    """
    found: list[str] = []
    todo = [name for name in modules if hasattr(sys.modules.get(name), "__path__")]
    while todo:
        package = todo.pop()
        for word in words:
            name = f"{package}.{word}"
            if name in sys.modules and name not in found:
                found.append(name)
                todo.append(name)
    return sorted(found)
