"""The options of the magics: one table, from which the parser, the help and the completion are made.

Imported by ``%load_ext``: nothing heavy may be imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from IPython.core.error import UsageError

from jupyter_train.notebook import words

Kind = Literal["", "cluster", "run", "name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, as people write it."""

    name: str  #: with its two dashes
    short: str = ""  #: with its one dash
    value: str = ""  #: what its value is called; empty: a switch
    help: str
    read: Callable[[str], Any] = words.unquoted  #: raises ValueError with a reason
    repeats: bool = False
    choices: tuple[str, ...] = ()
    completes: Kind = ""

    @property
    def key(self) -> str:
        """Its name as a key of what was parsed."""
        return self.name.lstrip("-").replace("-", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A word by its place."""

    key: str
    value: str
    required: bool = True
    repeats: bool = False  #: takes all the words that are left, as a list
    read: Callable[[str], Any] = words.unquoted
    choices: tuple[str, ...] = ()
    completes: Kind = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A magic or one of its subcommands."""

    words: str  #: as written: "%train cluster start"
    help: str
    operands: tuple[Operand, ...] = ()
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What stands behind ``%%train``."""

    ranks: int | None = None  #: None: one per worker
    name: str | None = None
    cluster: str | None = None
    bg: bool = False
    keep: tuple[str, ...] | None = None
    seed: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    strategy: Literal["auto", "none"] = "auto"
    batch: Literal["global", "per-rank"] = "global"
    sync_bn: bool = True
    check: bool | None = None
    timeout_s: float | None = None
    retries: int | None = None  #: None: as Dask's configuration has it
    checkpoint_every_s: float | None = None  #: None: as Dask's configuration has it
    resume: words.Resume | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


_RANKS = Option(
    name="--ranks",
    short="-n",
    value="N",
    read=words.whole_number,
    help="ranks to train on; default: one per worker of the cluster",
)
_RUN = Operand(key="run", value="RUN", completes="run")

TRAIN = Command(
    words="%%train",
    help="Train with this cell on a cluster: one process per rank, curves below, its names back in the notebook.",
    options=(
        _RANKS,
        Option(name="--name", value="NAME", read=words.label, help="name of the run; default: the notebook's"),
        Option(name="--cluster", value="NAME", completes="cluster", help="a cluster by name or address; default: the current one, else a local one is started"),
        Option(name="--bg", help="return at once; %train wait RUN brings the names in"),
        Option(name="--keep", value="A,B", read=words.names, help="names that come back; default: all that the cell assigns"),
        Option(name="--seed", value="S", read=words.seed, help="seed of torch, numpy and random on all ranks; default: the notebook's random state travels"),
        Option(name="--param", short="-p", value="KEY=VALUE", read=words.parameter, repeats=True, help="a value for train.params: a Python literal, else text; may be repeated"),
        Option(name="--strategy", value="auto|none", choices=("auto", "none"), help="none: every rank runs the plain cell, nothing is split or averaged; default: auto"),
        Option(name="--batch", value="global|per-rank", choices=("global", "per-rank"), help="what a batch size in the cell means; default: global"),
        Option(name="--no-sync-bn", help="each rank's BatchNorms see its share of a batch only; default: the global batch"),
        Option(name="--check", help="compare the first steps with those of one process, whatever it costs; default: at the first run of a cell's text, not on a GPU"),
        Option(name="--no-check", help="do not"),
        Option(name="--timeout", value="2h", read=words.seconds, help="end the run after this time: 90s, 30m, 2h, 1h30m"),
        Option(name="--retries", value="N", read=words.retries, help="after the loss of a rank, worker or host go on from the last checkpoint, so many times; default: 0"),
        Option(name="--checkpoint-every", value="30s", read=words.seconds, help="loops over train.epochs keep a checkpoint by themselves so often; default: with --retries every 30s, where the cell keeps none itself"),
        Option(name="--resume", value="RUN[@STEP]", read=words.resume, completes="run", help="go on where this run's last checkpoint stood, or that of this step"),
        Option(name="--tag", value="KEY=VALUE", read=words.tag, repeats=True, help="a label kept with the run; may be repeated"),
    ),
)  # fmt: skip

COMMANDS: tuple[Command, ...] = (
    Command(words="%train", help="what is going on: clusters and the newest runs"),
    Command(
        words="%train cluster start",
        help="start a cluster, or make the one that is there large enough",
        operands=(Operand(key="kind", value="KIND", required=False, choices=("local",)),),
        options=(
            Option(name="--workers", short="-n", value="N", read=words.whole_number, help="workers; default: what suits this machine"),
            Option(name="--idle-timeout", value="30m", read=words.seconds, help="end by itself after this time without notebook and run"),
        ),
    ),
    Command(words="%train cluster use", help="train on this cluster from now on", operands=(Operand(key="cluster", value="NAME|ADDRESS", completes="cluster"),)),
    Command(words="%train cluster list", help="the clusters there are"),
    Command(words="%train cluster scale", help="change the number of workers of the current cluster", operands=(Operand(key="workers", value="N", read=words.whole_number),)),
    Command(words="%train cluster stop", help="end a cluster; returns when its processes and files are gone", operands=(Operand(key="cluster", value="NAME", required=False, completes="cluster"),)),
    Command(words="%train runs", help="table of runs, newest first"),
    Command(words="%train attach", help="the live view of a run, again or from another kernel", operands=(_RUN,)),
    Command(words="%train stop", help="stop a run as ■ does", operands=(_RUN,), options=(Option(name="--kill", help="end its processes at once"),)),
    Command(words="%train wait", help="wait for the end of a run and bring its names in", operands=(_RUN,)),
    Command(
        words="%train capture",
        help="what these names, a run's cell or the last %%train cell would send, how large, and what is there already; %%train capture above a cell asks for that cell",
        operands=(Operand(key="names", value="NAME|RUN", required=False, repeats=True, completes="name"),),
    ),
    Command(
        words="%train compare",
        help="curves of two runs over each other, newest and best values, settings and code that differ",
        operands=(
            Operand(key="first", value="RUN", completes="run"),
            Operand(key="second", value="RUN", completes="run"),
        ),
    ),
    Command(
        words="%train clean",
        help="delete old runs with their results, checkpoints and history, after asking; those for which all that is said holds",
        options=(
            Option(name="--older-than", value="30d", read=words.seconds, help="ended longer ago; 30d where nothing is said"),
            Option(name="--larger-than", value="1GB", read=words.size, help="larger on this disk"),
            Option(name="--keep", value="N", read=words.count, help="beyond the newest so many"),
            Option(name="--yes", help="do not ask"),
        ),
    ),
    Command(words="%train log", help="what a run wrote", operands=(_RUN,), options=(Option(name="--rank", value="R", read=int, help="of this rank only"),)),
)  # fmt: skip


def train_options(line: str) -> TrainOptions:
    """What ``line``, the rest of the magic's line, asks for.

    Raises:
        UsageError: an unknown option (the nearest is named), a missing or wrong value.
    """
    given = parse(TRAIN, words.split_words(line))
    return TrainOptions(
        ranks=given.get("ranks"),
        name=given.get("name"),
        cluster=given.get("cluster"),
        bg=given.get("bg", False),
        keep=given.get("keep"),
        seed=given.get("seed"),
        params=dict(given.get("param", ())),
        strategy=given.get("strategy", "auto"),
        batch=given.get("batch", "global"),
        sync_bn=not given.get("no_sync_bn", False),
        check=_either(given, "check", "no_check"),
        timeout_s=given.get("timeout"),
        retries=given.get("retries"),
        checkpoint_every_s=given.get("checkpoint_every"),
        resume=given.get("resume"),
        tags=dict(given.get("tag", ())),
    )


def _either(given: Mapping[str, Any], yes: str, no: str) -> bool | None:
    """Which of two switches was given.

    Raises:
        UsageError: both were.
    """
    if yes in given and no in given:
        names = [f"--{key.replace('_', '-')}" for key in (yes, no)]
        raise UsageError(f"{TRAIN.words}: {names[0]} and {names[1]} contradict each other")
    return True if yes in given else False if no in given else None


def asks_for_capture(line: str) -> tuple[bool, str]:
    """Whether ``line`` begins with the word ``capture``, and what follows it."""
    given = line.split(maxsplit=1)
    if given[:1] != ["capture"]:
        return False, line
    return True, given[1] if len(given) > 1 else ""


def find_command(given: list[str]) -> tuple[Command, list[str]]:
    """The subcommand that ``given`` starts with, and the words behind it.

    Raises:
        UsageError: there is none; the nearest is named.
    """
    known = {tuple(command.words.split()[1:]): command for command in COMMANDS}
    for length in (2, 1, 0):
        command = known.get(tuple(given[:length])) if len(given) >= length else None
        if command is not None and (length or not given):
            return command, given[length:]
    firsts = list(dict.fromkeys(key[0] for key in known if key))
    if given[0] in firsts:
        seconds = [key[1] for key in known if len(key) > 1 and key[0] == given[0]]
        written = f"%train {given[0]}"
        if len(given) == 1:
            raise UsageError(f"{written} needs one of: {', '.join(seconds)}")
        raise UsageError(f"{written} has no {given[1]!r}{_nearest(given[1], seconds)}")
    raise UsageError(f"%train has no {given[0]!r}{_nearest(given[0], firsts)}")


def parse(command: Command, given: Iterable[str]) -> dict[str, Any]:
    """The values in the words ``given``, by key. Values of repeated options are lists.

    Raises:
        UsageError: says what is wrong, and with an unknown option which is nearest.
    """
    found: dict[str, Any] = {}
    operands = list(command.operands)
    rest = list(given)
    while rest:
        word = rest.pop(0)
        if len(word) > 1 and word.startswith("-") and not word[1:2].isdigit():
            option, value = _option(command, word)
            if option.value:
                if value is None and (not rest or rest[0].startswith("--")):
                    raise UsageError(
                        f"{command.words}: {option.name} needs a value: {option.name} {option.value}"
                    )
                read = _read(command, option.name, option, rest.pop(0) if value is None else value)
                if option.repeats:
                    found.setdefault(option.key, []).append(read)
                    continue
                found[option.key] = read
            elif value is not None:
                raise UsageError(f"{command.words}: {option.name} takes no value")
            else:
                found[option.key] = True
        elif operands:
            operand = operands[0]
            read = _read(command, operand.value, operand, word)
            if operand.repeats:
                found.setdefault(operand.key, []).append(read)
            else:
                found[operand.key] = read
                del operands[0]
        else:
            advice = f": a name is given with --name {word}" if command is TRAIN else ""
            raise UsageError(f"{command.words} does not know what to do with {word!r}{advice}")
    if operands and operands[0].required:
        raise UsageError(f"{command.words} needs {operands[0].value}: {usage(command)}")
    return found


def _option(command: Command, word: str) -> tuple[Option, str | None]:
    name, equals, value = word.partition("=")
    for option in command.options:
        if name == option.name or (option.short and name == option.short):
            return option, value if equals else None
        if option.short and option.value and word.startswith(option.short) and not word.startswith("--"):
            return option, word[len(option.short) :]
    names = [name for option in command.options for name in (option.name, option.short) if name]
    raise UsageError(f"{command.words} has no option {name}{_nearest(name, names)}")


def _nearest(word: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are: {', '.join(known)}" if known else ""


def _read(command: Command, name: str, what: Option | Operand, word: str) -> Any:
    try:
        value = what.read(word)
    except ValueError as error:
        # int() says it in Python's words.
        reason = "a whole number is needed" if "int()" in str(error) else str(error)
        raise UsageError(f"{command.words}: {name} {word}: {reason}") from None
    if what.choices and value not in what.choices:
        raise UsageError(f"{command.words}: {name} {word}{_nearest(str(value), list(what.choices))}")
    return value


def usage(command: Command) -> str:
    """One line: how ``command`` is written."""
    parts = [command.words]
    for operand in command.operands:
        more = " …" if operand.repeats else ""
        parts.append(f"{operand.value}{more}" if operand.required else f"[{operand.value}{more}]")
    for option in command.options:
        names = f"{option.short}/{option.name}" if option.short else option.name
        parts.append(f"[{names}{' ' + option.value if option.value else ''}]{' …' if option.repeats else ''}")
    return " ".join(parts)


def train_help() -> str:
    """The text of ``%%train?``."""
    lines = [TRAIN.help, "", "    %%train [options]", "    <any PyTorch code>", ""]
    lines += ["%%train capture [options]  starts nothing and shows what the cell would send.", "", "Options:"]
    for option in TRAIN.options:
        names = ", ".join(name for name in (option.short, option.name) if name)
        lines.append(f"  {names + ' ' + option.value if option.value else names:<28}{option.help}")
    lines += ["", "In the cell, `train` is this rank's view of the run: train.rank, train.log(loss=...), …"]
    return "\n".join(lines)


def line_help() -> str:
    """The text of ``%train?``."""
    lines = ["Clusters and runs, from the notebook.", ""]
    for command in COMMANDS:
        lines.append(f"  {usage(command)}")
        lines.append(f"      {command.help}")
    lines += ["", "RUN is a name (the newest run of that name), the start of a run's id, or `last`."]
    return "\n".join(lines)
