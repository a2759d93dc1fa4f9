"""Which environment variables travel."""

from __future__ import annotations

import dask
import pytest

from jupyter_train.notebook.environment import ALLOWED, allowed_patterns, travelling

HERE = {"OMP_NUM_THREADS": "2", "MKL_DYNAMIC": "0", "HF_HOME": "/data", "HF_TOKEN": "secret", "PATH": "/bin"}


def test_only_what_the_list_names_travels() -> None:
    assert set(travelling(HERE, ALLOWED)) == {"OMP_NUM_THREADS", "MKL_DYNAMIC", "HF_HOME"}


def test_a_secret_travels_only_by_its_full_name() -> None:
    assert "HF_TOKEN" not in travelling(HERE, ["*"])
    assert travelling(HERE, ["HF_TOKEN"]) == {"HF_TOKEN": "secret"}


@pytest.mark.parametrize("given", [["PATH"], "PATH"])
def test_the_list_can_be_set_in_dasks_configuration(given: object) -> None:
    assert allowed_patterns() == ALLOWED
    with dask.config.set({"jupyter-train.environment": given}):
        assert allowed_patterns() == ("PATH",)
