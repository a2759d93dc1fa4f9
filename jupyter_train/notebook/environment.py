"""What of this kernel's surroundings travels with a run: few environment variables, by an allow-list; settings of Dask's configuration.

Values of variables reach the ranks and nothing else; the journal never has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from jupyter_train.errors import TrainError
from jupyter_train.notebook import words

ALLOWED = (
    "OMP_*",
    "MKL_*",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "CUBLAS_WORKSPACE_CONFIG",
    "HF_*",
    "TORCH_HOME",
    "TOKENIZERS_PARALLELISM",
)

# A pattern must not carry a secret by accident: these travel only where the list names them in full.
_SECRETS = ("_TOKEN", "_KEY", "_SECRET", "_PASSWORD")


def allowed_patterns() -> tuple[str, ...]:
    """The list in Dask's configuration, ``jupyter-train.environment``, else ours."""
    import dask.config

    given = dask.config.get("jupyter-train.environment", None)
    if given is None:
        return ALLOWED
    return (given,) if isinstance(given, str) else tuple(str(pattern) for pattern in given)


def parting_timeout_s() -> float:
    """After how long ranks name one that they wait for: ``jupyter-train.parting-timeout`` of Dask's configuration, else 30 s.

    Raises:
        TrainError: it is not a time.
    """
    seconds = _seconds("parting-timeout", "30s")
    assert seconds is not None
    return seconds


def hang_timeout_s() -> float:
    """After how long a rank that others wait for, and that does nothing, is given up: ``jupyter-train.hang-timeout``, else 300 s; 0: never.

    Raises:
        TrainError: it is not a time.
    """
    seconds = _seconds("hang-timeout", "300s", zero="never")
    assert seconds is not None
    return seconds


def checkpoint_every_s() -> float | None:
    """How often loops over ``train.epochs`` keep a checkpoint by themselves: ``jupyter-train.checkpoint-every``; None: not said.

    Raises:
        TrainError: it is not a time.
    """
    return _seconds("checkpoint-every", None)


def retries() -> int:
    """How often a run goes on after a loss where its cell does not say: ``jupyter-train.retries``, else 0.

    Raises:
        TrainError: it is not such a number.
    """
    import dask.config

    given = dask.config.get("jupyter-train.retries", 0)
    try:
        if isinstance(given, (bool, float)):
            raise ValueError("a whole number is needed")
        return words.retries(str(given))
    except ValueError:
        raise TrainError(
            f"jupyter-train.retries of Dask's config is {given!r}: a whole number from 0 is needed"
        ) from None


def keep_last() -> int:
    """How many checkpoints a run keeps where its cell does not say: ``jupyter-train.checkpoints.keep-last``, else 2.

    Raises:
        TrainError: it is not such a number.
    """
    import dask.config

    given = dask.config.get("jupyter-train.checkpoints.keep-last", 2)
    if not (type(given) is int and given >= 1):
        raise TrainError(
            f"jupyter-train.checkpoints.keep-last of Dask's config is {given!r}: a whole number from 1 is needed"
        )
    return given


def _seconds(key: str, default: str | None, *, zero: str = "") -> float | None:
    """A time of Dask's configuration. ``zero``: what 0 means, where it means something.

    Raises:
        TrainError: it is not a time.
    """
    import dask.config
    from dask.utils import parse_timedelta

    given = dask.config.get(f"jupyter-train.{key}", default)
    if given is None and default is None:
        return None
    try:
        seconds = float(parse_timedelta(given))
    except (ValueError, TypeError, KeyError):
        seconds = math.nan
    if not (0 < seconds < math.inf or (zero and seconds == 0)):
        also = f", or 0: {zero}" if zero else ""
        raise TrainError(
            f"jupyter-train.{key} of Dask's config is {given!r}: a time is needed, such as {default or '30s'}{also}"
        )
    return seconds


def travelling(environ: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """The variables of ``environ`` that ``patterns`` let through."""
    allowed = tuple(patterns)
    return {
        name: value
        for name, value in environ.items()
        if name in allowed
        or (not name.endswith(_SECRETS) and any(fnmatchcase(name, pattern) for pattern in allowed))
    }
