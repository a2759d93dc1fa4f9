"""Ranks here are forked from the process of the tests: it has imported what a first step imports, and computed nothing in threads."""

from __future__ import annotations

import importlib
import pkgutil

import torch
import torch._dynamo

from jupyter_train.runtime import parallel

torch.set_num_threads(1)
importlib.import_module("jupyter_train.runtime.observe")
for _module in pkgutil.iter_modules(parallel.__path__, f"{parallel.__name__}."):
    importlib.import_module(_module.name)
