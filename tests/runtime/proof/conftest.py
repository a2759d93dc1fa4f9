"""Ranks here are forked from the process of the tests, which has imported what they need."""

from __future__ import annotations

import importlib
import pkgutil

from jupyter_train.runtime import proof
from tests.runtime.parallel import conftest as _imports_of_parallel

assert _imports_of_parallel
for _module in pkgutil.iter_modules(proof.__path__, f"{proof.__name__}."):
    importlib.import_module(_module.name)
