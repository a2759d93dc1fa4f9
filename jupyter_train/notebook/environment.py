"""What of this kernel's surroundings travels with a run: few environment variables, by an allow-list; settings of Dask's configuration.

Values of variables reach the ranks and nothing else; the journal never has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from jupyter_train.errors import TrainError

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
    import dask.config
    from dask.utils import parse_timedelta

    given = dask.config.get("jupyter-train.parting-timeout", "30s")
    try:
        seconds = float(parse_timedelta(given))
    except (ValueError, TypeError, KeyError):
        seconds = 0.0
    if seconds <= 0:
        raise TrainError(
            f"jupyter-train.parting-timeout of Dask's config is {given!r}: a time is needed, such as 30s"
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
