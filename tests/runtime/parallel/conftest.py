"""Ranks here are forked from the process of the tests: it has imported what a first step imports, and computed nothing in threads."""

from __future__ import annotations

import torch
import torch._dynamo

torch.set_num_threads(1)
