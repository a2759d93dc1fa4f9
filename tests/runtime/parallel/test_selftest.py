"""Asking torch how it is built leaves it as it was."""

from __future__ import annotations

import random

import numpy as np
import torch

from jupyter_train.runtime.parallel.selftest import graph_can_be_read, loaders_can_be_split


def test_the_questions_draw_no_random_number() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert graph_can_be_read()
    assert loaders_can_be_split()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_what_the_notebook_set_for_the_process_changes_no_answer() -> None:
    with torch.no_grad(), torch.device("meta"):
        assert graph_can_be_read()
        assert loaders_can_be_split()
