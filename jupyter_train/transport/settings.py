"""Settings that earlier cells made: process-wide ones, which no name of the notebook holds.

A cell must find them as it would have in the kernel: what torch makes by default,
how numpy prints, what matplotlib draws with, which warnings are shown. The
kernel reads them of modules that it has imported, and of those only what is not
the default where that can be told. They travel as one pickle per group, so that
a group whose module the worker lacks costs only itself.

Not among them: the start method of processes (a rank's workers are always forked), environment
variables (an allow-list of its own), the working folder, locale, and what libraries keep to themselves.
"""

from __future__ import annotations
import __future__

import functools
import inspect
import io
import operator
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jupyter_train.transport.importing import when_imported
from jupyter_train.transport.loggers import logging_settings, restore_logging
from jupyter_train.transport.torchsettings import restore_torch, torch_settings

#: Compiler flags that a ``from __future__`` line sets.
FUTURES = (
    functools.reduce(
        operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
    )
    & ~inspect.CO_NESTED
)

#: Of matplotlib's parameters: where and how a figure is shown is not the notebook's to say on a rank.
_OF_THE_SCREEN = re.compile(
    r"backend|interactive$|toolbar|tk\.|webagg\.|figure\.raise_window|_internal\.|docstring"
)


#: Of one group. A formatter or filter written in the notebook may hold on to anything.
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The process that settings are restored in."""

    rank: int = 0
    device: str = "cpu"  #: takes the place of an accelerator that is the default device in the notebook
    threads: int = 1  #: of torch in one operation: this rank's share of the host


def current_settings() -> dict[str, bytes]:
    """The settings of this process, group by group; only of modules that are imported here."""
    found: dict[str, bytes] = {}
    for group, read in _READERS.items():
        try:
            value = read()
            data = _dumps(value) if value else b""
            if 0 < len(data) <= MAX_BYTES:
                found[group] = data
        except Exception:  # a library of any version and what users put into it: one group less
            continue
    return found


def restore_settings(settings: Mapping[str, bytes], where: Where) -> list[str]:
    """Make this process as the kernel was.

    Those of a module that is not imported here wait until it is.

    Returns:
        A sentence for each group that could not be restored.
    """
    remarks: list[str] = []
    for group, data in settings.items():
        restore = _WRITERS.get(group)
        if restore is None:
            continue
        try:
            remarks += restore(data, where) or ()
        except Exception as error:  # as in current_settings
            remarks.append(f"the notebook's settings of {group} are not known here: {error}")
    return remarks


def future_flags(settings: Mapping[str, bytes]) -> int:
    """Compiler flags of the ``from __future__`` lines of earlier cells."""
    data = settings.get("future")
    return int(pickle.loads(data)) if data else 0


def inline_options(settings: Mapping[str, bytes]) -> dict[str, Any]:
    """Traits of ``InlineBackend`` that the notebook changed: formats and arguments of its figures."""
    data = settings.get("inline")
    return dict(pickle.loads(data)) if data else {}


def with_future_flags(settings: Mapping[str, bytes], flags: int) -> dict[str, bytes]:
    """``settings`` and the flags of earlier cells, which only the shell's compiler knows."""
    flags &= FUTURES
    return {**settings, "future": _dumps(flags)} if flags else dict(settings)


def _dumps(value: Any) -> bytes:
    import cloudpickle

    file = io.BytesIO()
    cloudpickle.CloudPickler(file, 5).dump(value)
    return file.getvalue()


# Python's own


def _python() -> dict[str, Any]:
    found: dict[str, Any] = {"recursion": sys.getrecursionlimit(), "digits": sys.get_int_max_str_digits()}
    decimal = sys.modules.get("decimal")
    if decimal is not None:
        found["decimal"] = decimal.getcontext()
    return found


def _restore_python(data: bytes, where: Where) -> None:
    found = pickle.loads(data)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), found["recursion"]))
    sys.set_int_max_str_digits(found["digits"])
    if "decimal" in found:
        import decimal

        decimal.setcontext(found["decimal"])


def _warnings() -> list[tuple[Any, ...]]:
    filters = []
    for action, message, category, module, line in warnings.filters:
        told = getattr(category, "__module__", ""), getattr(category, "__qualname__", "")
        filters.append((action, _pattern(message), told, _pattern(module), line))
    return filters


def _pattern(given: Any) -> str:
    return given if isinstance(given, str) else getattr(given, "pattern", "")


def _restore_warnings(data: bytes, where: Where) -> None:
    """The kernel's filters come before those that modules of this process have set.

    A category of a module that is not imported here is left out: importing it could take seconds.
    """
    for action, message, (module, name), of_module, line in reversed(pickle.loads(data)):
        category = getattr(sys.modules.get(module), name, None)
        if isinstance(category, type) and issubclass(category, Warning):
            warnings.filterwarnings(action, message, category, of_module, line)


# Libraries


def _numpy() -> dict[str, Any]:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return {}
    shown = {key: value for key, value in numpy.get_printoptions().items() if key != "override_repr"}
    return {"print": shown, "errors": numpy.geterr()}


def _restore_numpy(data: bytes, where: Where) -> None:
    import numpy as np

    found = pickle.loads(data)
    np.set_printoptions(**found["print"])
    np.seterr(**found["errors"])


def _matplotlib() -> dict[str, Any]:
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is None:
        return {}
    default = matplotlib.rcParamsDefault
    # By dict: asking rcParams itself for some keys warns, or starts a backend.
    given = dict(dict.items(matplotlib.rcParams))
    return {
        key: value
        for key, value in given.items()
        if not _OF_THE_SCREEN.match(key) and (key not in default or dict.__getitem__(default, key) != value)
    }


def _restore_matplotlib(data: bytes, where: Where) -> None:
    def restore() -> None:
        import matplotlib

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matplotlib.rcParams.update(pickle.loads(data))

    when_imported("matplotlib", restore)


def _inline() -> dict[str, Any]:
    config = sys.modules.get("matplotlib_inline.config")
    backend = config.InlineBackend if config is not None else None
    if backend is None or not backend.initialized():
        return {}
    made = backend.instance()
    return {
        "figure_formats": sorted(made.figure_formats),
        "print_figure_kwargs": dict(made.print_figure_kwargs),
        "close_figures": made.close_figures,
    }


def _pandas() -> dict[str, Any]:
    if "pandas" not in sys.modules:
        return {}
    from pandas._config import config

    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, option in config._registered_options.items():
            if key not in config._deprecated_options:
                value = config.get_option(key)
                if value is not option.defval and value != option.defval:
                    found[key] = _dumps(value)
    return found


def _restore_pandas(data: bytes, where: Where) -> None:
    def restore() -> None:
        import pandas as pd

        for key, value in pickle.loads(data).items():
            try:
                pd.set_option(key, pickle.loads(value))
            except (KeyError, ValueError):
                continue  # another release of pandas

    when_imported("pandas", restore)


def _sklearn() -> dict[str, Any]:
    sklearn = sys.modules.get("sklearn")
    return dict(sklearn.get_config()) if sklearn is not None else {}


def _restore_sklearn(data: bytes, where: Where) -> None:
    def restore() -> None:
        import sklearn

        sklearn.set_config(**pickle.loads(data))

    when_imported("sklearn", restore)


_READERS: dict[str, Callable[[], Any]] = {
    "python": _python,
    "warnings": _warnings,
    "logging": logging_settings,
    "numpy": _numpy,
    "matplotlib": _matplotlib,
    "inline": _inline,
    "pandas": _pandas,
    "sklearn": _sklearn,
    "torch": torch_settings,
}

#: In this order: torch's default device last, because it holds for every tensor that is made after it.
_WRITERS: dict[str, Callable[[bytes, Where], list[str] | None]] = {
    "python": _restore_python,
    "warnings": _restore_warnings,
    "logging": lambda data, where: restore_logging(pickle.loads(data), rank=where.rank),
    "numpy": _restore_numpy,
    "matplotlib": _restore_matplotlib,
    "pandas": _restore_pandas,
    "sklearn": _restore_sklearn,
    "torch": lambda data, where: restore_torch(
        pickle.loads(data), device=where.device, threads=where.threads
    ),
}
