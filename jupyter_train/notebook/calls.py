"""From a function and its arguments to a run: what travels, under which label, and which settings it has."""

from __future__ import annotations

import atexit
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

from jupyter_train.errors import TrainError
from jupyter_train.notebook import words
from jupyter_train.notebook.cell import conduct
from jupyter_train.notebook.failure import quiet
from jupyter_train.notebook.options import TrainOptions
from jupyter_train.notebook.session import current_session
from jupyter_train.notebook.submit import Work
from jupyter_train.record import Call
from jupyter_train.transport.call import RETURN_VALUE, argument_label, function_label

if TYPE_CHECKING:
    from jupyter_train.notebook.checkpoints import KeptCheckpoint
    from jupyter_train.notebook.function import Settings
    from jupyter_train.notebook.run import Run
    from jupyter_train.notebook.session import Session

_LET_GO_S = 3.0  #: a poll of the cluster takes up to 2 s
_let_go: list[object] = []  #: what is called at exit, once there is anything to let go of


def start_call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    settings: Settings,
    *,
    bg: bool,
) -> Run:
    """Runs ``function`` on a cluster; returns when the run has ended well, in the background at once.

    Raises:
        TypeError, ValueError: as ``jt.submit``.
        Exception: what the function raised, without our frames in IPython.
    """
    session = current_session()
    if session.shell is None and not _let_go:
        _let_go.append(atexit.register(_let_go_of_runs, session))
    work = call_work(function, args, kwargs, notebook=session.namespace)
    options = call_options(settings, list(work.given), bg=bg)
    try:
        return conduct(work, options, session)
    except TrainError as error:
        raise quiet(error) from None
    except KeyboardInterrupt as error:
        raise quiet(error, ["KeyboardInterrupt: nothing was started"]) from None


def _let_go_of_runs(session: Session) -> None:
    """At the end of a script: a thread that still prints would meet a standard output that is being closed."""
    following = [run.follow() for run in session.runs.values() if run.is_followed]
    for follower in following:
        follower.stop()
    for follower in following:
        follower.join(_LET_GO_S)


def call_work(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    notebook: dict[str, Any],
) -> Work:
    """The call as a run's work. ``notebook``: the names that code of ``__main__`` reads.

    Raises:
        TypeError: it cannot be called, or not with these arguments.
    """
    if not callable(function):
        raise TypeError(f"jt.submit needs a function: this {type(function).__name__} cannot be called")
    name = _name(function)
    by_place, by_name = _labels(function, name, args, kwargs)
    called = function_label(name)
    given = {called: function}
    given |= zip(by_place, args, strict=True)
    given |= {label: kwargs[key] for key, label in by_name.items()}
    plain = _plain_function(function)
    source, first_line = _source(plain, name)
    return Work(
        source=source,
        first_line=first_line,
        namespace=_namespace(plain, notebook),
        name=words.safe_label(name) or "run",
        call=Call(
            function=called,
            args=by_place,
            kwargs=by_name,
            file=plain.__code__.co_filename if plain is not None else "",
        ),
        given=given,
    )


def call_options(settings: Settings, labels: Iterable[str], *, bg: bool) -> TrainOptions:
    """``settings`` as the magic's line would give them; ``labels`` are those of the call.

    Raises:
        ValueError, TypeError: a setting has a value that it cannot have; it is named.
    """
    given = cast("dict[str, Any]", settings)
    keep = given.get("keep")
    if isinstance(keep, str):
        keep = words.names(keep)
    if keep is not None:
        known = set(labels)
        as_labels = {name: argument_label(name) for name in keep}
        keep = (
            RETURN_VALUE,
            *(label if label in known else name for name, label in as_labels.items()),
        )
    cluster, resume = given.get("cluster"), given.get("resume")
    return TrainOptions(
        bg=bg,
        keep=keep,
        cluster=None if cluster is None else str(getattr(cluster, "name", cluster)),
        ranks=_read("ranks", words.whole_number, given.get("ranks")),
        name=_read("name", words.label, given.get("name")),
        seed=_read("seed", words.seed, given.get("seed")),
        timeout_s=_read("timeout", words.seconds, given.get("timeout")),
        retries=_read("retries", words.retries, given.get("retries")),
        checkpoint_every_s=_read("checkpoint_every", words.seconds, given.get("checkpoint_every")),
        resume=_read("resume", words.resume, _as_text(resume)),
        strategy=_one_of("strategy", ("auto", "none"), given.get("strategy", "auto")),
        batch=_one_of("batch", ("global", "per-rank"), given.get("batch", "global")),
        sync_bn=_one_of("sync_bn", (True, False), given.get("sync_bn", True)),
        check=_one_of("check", (None, True, False), given.get("check")),
        params=_params(given.get("params")),
        tags={str(key): str(value) for key, value in (given.get("tags") or {}).items()},
    )


def _read(setting: str, read: Callable[[str], Any], value: object) -> Any:
    if value is None:
        return None
    try:
        return read(str(value))
    except ValueError as error:
        reason = "a whole number is needed" if "int()" in str(error) else str(error)
        raise ValueError(f"{setting}={value!r}: {reason}") from None


def _as_text(resume: str | Run | KeptCheckpoint | None) -> str | None:
    """How the magic's line names it."""
    if resume is None or isinstance(resume, str):
        return resume
    run_id = getattr(resume, "id", None)
    return str(run_id) if run_id is not None else f"{resume.run_id}@{resume.step}"  # type: ignore[union-attr]


def _one_of(setting: str, choices: tuple[object, ...], value: object) -> Any:
    if value not in choices:
        raise ValueError(f"{setting}={value!r}: there are {', '.join(map(str, choices))}")
    return value


def _params(params: Mapping[str, Any] | None) -> dict[str, Any]:
    out = {}
    for key, value in (params or {}).items():
        if not isinstance(key, str) or not key.isidentifier():
            raise ValueError(f"params: {key!r} is not a name")
        try:
            out[key] = words.json_value(value)
        except ValueError as error:
            raise ValueError(f"params[{key!r}]: {error}") from None
    return out


def _labels(
    function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What each argument is called, those by place and those by name.

    Raises:
        TypeError: Python would not take them either.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin tells nothing
        places = [f"args[{index}]" for index in range(len(args))]
        return tuple(map(argument_label, places)), {key: argument_label(key) for key in kwargs}
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}() {error}") from None
    of_kind: dict[Any, list[str]] = {}
    for parameter in signature.parameters.values():
        of_kind.setdefault(parameter.kind, []).append(parameter.name)
    kind = inspect.Parameter
    places = of_kind.get(kind.POSITIONAL_ONLY, []) + of_kind.get(kind.POSITIONAL_OR_KEYWORD, [])
    more = of_kind.get(kind.VAR_POSITIONAL, ["args"])[0]
    places += [f"{more}[{index}]" for index in range(len(args) - len(places))]
    words_ = {*of_kind.get(kind.POSITIONAL_OR_KEYWORD, []), *of_kind.get(kind.KEYWORD_ONLY, [])}
    rest = of_kind.get(kind.VAR_KEYWORD, ["kwargs"])[0]
    by_name = {key: argument_label(key if key in words_ else f"{rest}[{key!r}]") for key in kwargs}
    return tuple(map(argument_label, places[: len(args)])), by_name


def _plain_function(function: Any) -> FunctionType | None:
    """The Python function that runs when ``function`` is called: inside decorators, partials, methods."""
    for _ in range(100):
        if isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
            return function
        for inside in ("__wrapped__", "func", "__func__"):
            if hasattr(function, inside):
                function = getattr(function, inside)
                break
        else:
            called = "__init__" if isinstance(function, type) else "__call__"
            method = getattr(function if isinstance(function, type) else type(function), called, None)
            return method if isinstance(method, FunctionType) else None
    return None


def _name(function: Any) -> str:
    plain = _plain_function(function)
    name = getattr(function, "__name__", None) or getattr(plain, "__name__", None)
    return "lambda" if name == "<lambda>" else str(name or type(function).__name__)


def _namespace(plain: FunctionType | None, notebook: dict[str, Any]) -> dict[str, Any]:
    """The names that the function shares with the code around it: where it has some of its own, ``%run`` had."""
    if plain is not None and plain.__globals__.get("__name__") == "__main__":
        return plain.__globals__
    return notebook


def _source(plain: FunctionType | None, name: str) -> tuple[str, int]:
    if plain is not None:
        try:
            lines, first_line = inspect.getsourcelines(plain)
            return textwrap.dedent("".join(lines)), first_line
        except (OSError, TypeError):  # typed into a plain interpreter
            pass
    return f"{name}(...)", 1
