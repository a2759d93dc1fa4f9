"""Functions on a cluster: ``jt.submit(fit, model, ranks=2)`` and ``@jt.on_cluster(ranks=2)``.

For editors that do not know ``%%`` cells, and for scripts. A function that is
decorated travels to the ranks with its decorator, which there only calls it:
this module imports nothing heavy.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypedDict, TypeVar, overload

from jupyter_train.errors import CellError

if TYPE_CHECKING:
    from typing import Unpack

    from jupyter_train.cluster import Connection
    from jupyter_train.notebook.checkpoints import KeptCheckpoint
    from jupyter_train.notebook.run import Run

P = ParamSpec("P")
R = TypeVar("R")

#: In the environment of every process of a run: ``jupyter_train.runtime.processes.RUN_MARK``.
RUN_MARK = "JUPYTER_TRAIN_RUN"


class Settings(TypedDict, total=False):
    """What ``%%train`` takes on its line, as keywords."""

    ranks: int | None  #: default: one per worker of the cluster
    name: str | None  #: default: the function's
    cluster: str | Connection | None
    seed: int | None
    strategy: Literal["auto", "none"]
    batch: Literal["global", "per-rank"]
    sync_bn: bool
    check: bool | None  #: compare with one process; default: the first time
    timeout: float | str | None  #: seconds, or "2h"
    retries: int | None  #: after losses; default: as configured, else 0
    checkpoint_every: float | str | None  #: seconds, or "30s"
    resume: str | Run | KeptCheckpoint | None  #: "run" or "run@step"
    params: Mapping[str, Any] | None  #: for ``train.params``
    tags: Mapping[str, str] | None
    keep: Iterable[str] | None  #: arguments whose changes come back, and global names; default: all


def submit(
    function: Callable[..., Any],
    /,
    *args: Any,
    ranks: int | None = None,
    name: str | None = None,
    cluster: str | Connection | None = None,
    seed: int | None = None,
    strategy: Literal["auto", "none"] = "auto",
    batch: Literal["global", "per-rank"] = "global",
    sync_bn: bool = True,
    check: bool | None = None,
    timeout: float | str | None = None,
    retries: int | None = None,
    checkpoint_every: float | str | None = None,
    resume: str | Run | KeptCheckpoint | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    keep: Iterable[str] | None = None,
    **kwargs: Any,
) -> Run:
    """Calls ``function(*args, **kwargs)`` on every rank of a new run, and returns the run at once.

    Its view is shown here and goes on by itself. ``run.value`` waits, brings in
    what the function changed in place, and gives what rank 0's call returned.

    Args:
        function: any callable that can travel: of a notebook, a script, a module; a method, a partial.
        args: of the function. Lists, models, arrays that it changes are changed here too.
        ranks: default: one per worker of the cluster; without a cluster a local one is started.
        name: of the run; default: the function's.
        cluster: its name or address, or what ``jt.cluster()`` gave.
        seed: of torch, numpy and random on all ranks; default: the states they have here.
        strategy: ``none``: every rank runs the plain function, nothing is split or averaged.
        batch: what a batch size in the function means.
        sync_bn: BatchNorms see the global batch; False: each rank's its share.
        check: compare the first steps with those of one process; default: at the first run of a function's text.
        timeout: seconds, or text as ``2h``; the run then ends FAILED with RunTimeout.
        retries: so many times the run goes on from its last checkpoint after the loss of a rank, worker or host.
        checkpoint_every: seconds, or text as ``30s``: loops over ``train.epochs`` keep a checkpoint so often.
        resume: a run, one of its checkpoints, or ``"name@step"``: go on where its last checkpoint stood, or that one.
        params: for ``train.params``.
        tags: labels kept with the run.
        keep: names of arguments whose changes come back, and of globals; default: all.
        kwargs: of the function.

    Raises:
        TypeError: the arguments do not fit the function, or a keyword is both a setting and the function's.
        ValueError: a setting has a value that it cannot have.
        ClusterError, CaptureError: nothing was started.
    """
    settings: Settings = {
        "ranks": ranks,
        "name": name,
        "cluster": cluster,
        "seed": seed,
        "strategy": strategy,
        "batch": batch,
        "sync_bn": sync_bn,
        "check": check,
        "timeout": timeout,
        "retries": retries,
        "checkpoint_every": checkpoint_every,
        "resume": resume,
        "params": params,
        "tags": tags,
        "keep": keep,
    }
    defaults = inspect.signature(submit).parameters
    _refuse_ambiguous(
        function, [key for key, value in settings.items() if value is not defaults[key].default]
    )
    return _start(function, args, kwargs, settings, bg=True)


@overload
def on_cluster(function: Callable[P, R], /) -> ClusterFunction[P, R]: ...


@overload
def on_cluster(**settings: Unpack[Settings]) -> Callable[[Callable[P, R]], ClusterFunction[P, R]]: ...


def on_cluster(function: Callable[P, R] | None = None, /, **settings: Unpack[Settings]) -> Any:
    """A decorator: calling the function calls it on every rank of a new run, and gives rank 0's value.

        @jt.on_cluster(ranks=2)
        def fit(model, epochs): ...

        fit(model, epochs=3)               # waits, as any call does
        run = fit.submit(model, epochs=3)  # a Run, at once

    The settings are those of :func:`submit`; every keyword of a call is the function's own.
    """
    if function is not None:
        return ClusterFunction(function, settings)
    return lambda function: ClusterFunction(function, settings)


class ClusterFunction(Generic[P, R]):
    """A function whose calls are runs. On a rank it is the plain function: one decorated function may call another."""

    def __init__(self, function: Callable[P, R], settings: Settings) -> None:
        unknown = sorted(settings.keys() - Settings.__annotations__.keys())
        if unknown:
            raise TypeError(
                f"jt.on_cluster has no {unknown[0]!r}; there are: {', '.join(Settings.__annotations__)}"
            )
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self.settings = settings.copy()
        if (cluster := settings.get("cluster")) is not None:
            # Of a connection the name alone: a decorated function travels.
            self.settings["cluster"] = str(getattr(cluster, "name", cluster))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Waits for the run.

        An interrupt stops the run, as ■ does a cell.

        Raises:
            Exception: what the function raised on the ranks; else as of :func:`submit`.
        """
        if _inside_a_run():
            return self.__wrapped__(*args, **kwargs)
        run = _start(self, args, kwargs, self.settings, bg=False)
        value: R = run.value
        run.let_go_of_value()
        return value

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        """See :func:`submit`."""
        return _start(self, args, kwargs, self.settings, bg=True)

    @overload
    def __get__(self, owner: None, kind: type) -> ClusterFunction[P, R]: ...

    @overload
    def __get__(self, owner: object, kind: type | None = None) -> ClusterFunction[..., R]: ...

    def __get__(self, owner: object, kind: type | None = None) -> Any:
        """The method of ``owner``, where a class has it."""
        return self if owner is None else ClusterFunction(MethodType(self.__wrapped__, owner), self.settings)

    def __repr__(self) -> str:
        return f"<{self.__wrapped__!r} on a cluster>"

    def __reduce__(self) -> Any:
        name, module = getattr(self, "__qualname__", ""), sys.modules.get(getattr(self, "__module__", ""))
        if module is not None and module.__name__ != "__main__" and getattr(module, name, None) is self:
            return name  # the ranks import it
        return ClusterFunction, (self.__wrapped__, self.settings), self.__dict__


def _start(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    settings: Settings,
    *,
    bg: bool,
) -> Run:
    if _inside_a_run():
        raise CellError("a rank cannot start a run: call the function itself")
    from jupyter_train.notebook.calls import start_call

    return start_call(function, args, kwargs, settings, bg=bg)


def _refuse_ambiguous(function: Callable[..., Any], given: Iterable[str]) -> None:
    """Raises TypeError where a keyword that was given is a parameter of the function too."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin tells nothing
        return
    for key in given:
        parameter = parameters.get(key)
        if parameter is not None and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            called = getattr(function, "__name__", "function")
            raise TypeError(
                f"{key} is a setting of jt.submit and a parameter of {called}: pass it by its place, or say  "
                f"jt.on_cluster({key}=…)({called}).submit(…),  where each keyword of the call is the function's own"
            )


def _inside_a_run() -> bool:
    return bool(os.environ.get(RUN_MARK))
