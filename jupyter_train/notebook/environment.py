"""Which environment variables travel with a run: few, by an allow-list.

Their values reach the ranks and nothing else; the journal never has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

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


def travelling(environ: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    """The variables of ``environ`` that ``patterns`` let through."""
    allowed = tuple(patterns)
    return {
        name: value
        for name, value in environ.items()
        if name in allowed
        or (not name.endswith(_SECRETS) and any(fnmatchcase(name, pattern) for pattern in allowed))
    }
