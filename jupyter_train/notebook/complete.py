"""Tab in a line of ``%%train`` or ``%train``: options, their values, clusters, runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jupyter_train.notebook.options import COMMANDS, TRAIN, Command, Kind, Operand, Option

_RUNS_OFFERED = 50


def complete(shell: object, event: Any) -> list[str]:
    """For IPython's hook ``complete_command``: what could stand at the cursor."""
    del shell
    line = (event.text_until_cursor or event.line).rpartition("\n")[2]
    words = line.split()
    symbol = "" if not line or line[-1].isspace() else words.pop() if words else ""
    if not words:
        return []
    return candidates(words, symbol)


def candidates(words: list[str], symbol: str) -> list[str]:
    """What ``symbol``, behind ``words`` (the magic first), could become."""
    if words[0] == "%%train":
        if words[1:2] == ["capture"]:
            words = [words[0], *words[2:]]
        elif symbol and len(words) == 1 and "capture".startswith(symbol):
            return ["capture"]
        return _of(TRAIN, words[1:], symbol)
    given = words[1:]
    subcommands = sorted({_next(command, given) for command in COMMANDS} - {""})
    if subcommands:
        return [word for word in subcommands if word.startswith(symbol)]
    for length in (2, 1):
        for command in COMMANDS:
            if command.words.split()[1:] == given[:length]:
                return _of(command, given[length:], symbol)
    return []


def _next(command: Command, given: list[str]) -> str:
    """The word of a subcommand that follows ``given``."""
    path = command.words.split()[1:]
    return path[len(given)] if len(path) > len(given) and path[: len(given)] == given else ""


def _of(command: Command, given: list[str], symbol: str) -> list[str]:
    name, equals, part = symbol.partition("=")
    if equals:
        option = _named(command, name)
        return [f"{name}={value}" for value in _values(option) if value.startswith(part)] if option else []
    before = _named(command, given[-1]) if given else None
    if before is not None and before.value:
        return [value for value in _values(before) if value.startswith(symbol)]
    offered = [option.name for option in command.options if option.repeats or option.name not in given]
    operands = [word for word in given if not word.startswith("-")]
    at = len(operands)
    if command.operands and command.operands[-1].repeats:
        at = min(at, len(command.operands) - 1)
    if not symbol.startswith("-") and at < len(command.operands):
        offered = [*_values(command.operands[at]), *offered]
    return [word for word in offered if word.startswith(symbol)]


def _named(command: Command, word: str) -> Option | None:
    return next((o for o in command.options if word in (o.name, o.short) and word), None)


def _values(what: Option | Operand) -> list[str]:
    return list(what.choices) or list(_known(what.completes))


def _known(kind: Kind) -> Iterable[str]:
    """Names that are there now. Completion must never raise, nor wait for a cluster."""
    try:
        if kind == "cluster":
            from jupyter_train import cluster

            return [record.name for record in cluster.clusters()]
        if kind == "run":
            from jupyter_train.store import Store

            runs = Store().runs(_RUNS_OFFERED)
            names = dict.fromkeys(run.name for run in runs if run.name and " " not in run.name)
            return ["last", *names, *(run.run_id for run in runs)]
        if kind == "name":
            from types import ModuleType

            from jupyter_train.notebook.session import current_session
            from jupyter_train.transport.exclusions import is_users

            names = current_session().namespace
            return sorted(
                name
                for name, value in names.items()
                if not name.startswith("_") and is_users(name, value) and not isinstance(value, ModuleType)
            )
    except Exception:  # a damaged store is for the command to tell
        return []
    return []
