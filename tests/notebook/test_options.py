"""What may stand behind the magics."""

from __future__ import annotations

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError

from jupyter_train.notebook import complete, words
from jupyter_train.notebook.options import (
    COMMANDS,
    TRAIN,
    TrainOptions,
    find_command,
    line_help,
    parse,
    train_help,
    train_options,
)
from tests.notebook.conftest import Shell


def test_nothing_behind_the_magic_means_the_defaults() -> None:
    assert train_options("") == TrainOptions()


def test_every_option_is_read() -> None:
    line = (
        "-n 4 --name 'my run' --cluster lab --bg --keep model,opt --seed 7 -p lr=0.1 -p layers=[64, 32] "
        "--batch per-rank --strategy none --no-sync-bn --no-check --timeout 1h30m --tag team=vision "
        "--retries 3 --checkpoint-every 30s --resume digits@120"
    )
    assert train_options(line) == TrainOptions(
        ranks=4,
        name="my run",
        cluster="lab",
        bg=True,
        keep=("model", "opt"),
        seed=7,
        params={"lr": 0.1, "layers": [64, 32]},
        batch="per-rank",
        strategy="none",
        sync_bn=False,
        check=False,
        timeout_s=5400.0,
        retries=3,
        checkpoint_every_s=30.0,
        resume=words.Resume(run="digits", step=120),
        tags={"team": "vision"},
    )


@pytest.mark.parametrize("line", ["-n 3", "-n3", "--ranks 3", "--ranks=3", "-n=3"])
def test_a_value_may_follow_in_every_usual_way(line: str) -> None:
    assert train_options(line).ranks == 3


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("lr=1e-3", 1e-3),
        ("n=-2", -2),
        ("on=True", True),
        ("opt=adam", "adam"),
        ("opt='adam'", "adam"),
        ("digits='0.1'", "0.1"),
        ("'lr=0.5'", 0.5),
        ("sizes=(1, 2)", [1, 2]),
        ("d={'a': [1, 2]}", {"a": [1, 2]}),
        ("x=os.system('x')", "os.system('x')"),
        ("x=a=b", "a=b"),
        ("x=", ""),
        ("note=ann's", "ann's"),
    ],
)
def test_a_parameter_is_a_literal_else_text(given: str, value: object) -> None:
    ((_, read),) = train_options(f"-p {given}").params.items()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("given", ["x={1, 2}", "x=b'a'", "x={1: 2}", "x=1j", f"x={2**64}", "x", "1x=2"])
def test_a_parameter_that_json_cannot_carry_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="--param"):
        train_options(f"-p {given}")


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90s", 90), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("45", 45), ("1d", 86400)],
)
def test_durations_are_seconds(given: str, seconds: float) -> None:
    assert words.seconds(given) == seconds


@pytest.mark.parametrize(
    ("given", "run", "step"),
    [
        ("last", "last", None),
        ("digits@0", "digits", 0),
        ("'my run'@12", "my run", 12),
        ("'my run@12'", "my run", 12),
        ("ann@home", "ann@home", None),
        ("ann@home@7", "ann@home", 7),
        ("@7", "@7", None),
    ],
)
def test_a_run_to_resume_may_be_named_with_a_step(given: str, run: str, step: int | None) -> None:
    assert words.resume(given) == words.Resume(run=run, step=step)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--nmae x", "did you mean --name?"),
        ("--rank 2", "did you mean --ranks?"),
        ("--strategy ato", "did you mean auto?"),
        ("--batch both", "there are: global, per-rank"),
        ("-n 0", "from 1"),
        ("-n many", "whole number"),
        ("--seed -1", "between 0"),
        ("--timeout 2x", "2h, 90s"),
        ("--timeout 0s", "longer"),
        ("--name", "--name NAME"),
        ("--name --bg", "--name NAME"),
        ("--bg=yes", "takes no value"),
        ("--name last", "choose another"),
        ("--keep a.b", "'a.b' is not a name"),
        ("digits", "--name digits"),
        ("--name 'x", "is missing"),
        ("-p x=[1, 2", "is missing"),
        ("--retries -1", "from 0"),
        ("--retries often", "whole number"),
        ("--retires 2", "did you mean --retries?"),
        ("--checkpoint-every 0s", "longer"),
        ("--resume ''", "RUN or RUN@STEP"),
    ],
)
def test_what_is_wrong_is_said(line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        train_options(line)
    assert said in str(caught.value)
    assert "%%train" in str(caught.value) or "missing" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "command", "given"),
    [
        ("", "%train", {}),
        ("cluster start local -n 4 --idle-timeout 30m", "%train cluster start", {"kind": "local", "workers": 4, "idle_timeout": 1800.0}),
        ("cluster use tcp://10.0.0.1:8786", "%train cluster use", {"cluster": "tcp://10.0.0.1:8786"}),
        ("cluster scale 3", "%train cluster scale", {"workers": 3}),
        ("cluster stop", "%train cluster stop", {}),
        ("stop last --kill", "%train stop", {"run": "last", "kill": True}),
        ("clean --older-than 2d --larger-than 1GB --keep 5 --yes", "%train clean", {"older_than": 172800.0, "larger_than": 10**9, "keep": 5, "yes": True}),
        ("compare a last", "%train compare", {"first": "a", "second": "last"}),
        ('log "my run" --rank 1', "%train log", {"run": "my run", "rank": 1}),
    ],
)  # fmt: skip
def test_subcommands_are_read(line: str, command: str, given: dict[str, object]) -> None:
    found, rest = find_command(words.split_words(line))
    assert (found.words, parse(found, rest)) == (command, given)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run", "did you mean runs?"),
        ("cluster", "start, use, list, scale, stop"),
        ("cluster strat", "did you mean start?"),
        ("cluster start cuda", "there are: local"),
        ("log", "%train log RUN [--rank R]"),
        ("runs all", "does not know what to do with 'all'"),
        ("compare a", "%train compare RUN RUN"),
    ],
)
def test_what_is_wrong_with_a_subcommand_is_said(line: str, said: str) -> None:
    def read() -> None:
        found, rest = find_command(words.split_words(line))
        parse(found, rest)

    with pytest.raises(UsageError) as caught:
        read()
    assert said in str(caught.value)


def test_help_names_everything_there_is() -> None:
    assert all(option.name in train_help() for option in TRAIN.options)
    assert all(command.words in line_help() for command in COMMANDS)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%%train --na", ["--name"]),
        ("%%train --name x --na", []),
        ("%%train --strategy ", ["auto", "none"]),
        ("%%train --batch=p", ["--batch=per-rank"]),
        ("%%train --cluster f", ["fake"]),
        ("%train cl", ["clean", "cluster"]),
        ("%train compare last la", ["last"]),
        ("%train cluster s", ["scale", "start", "stop"]),
        ("%train cluster start ", ["local", "--workers", "--idle-timeout"]),
        ("%train cluster use ", ["fake"]),
        ("%train stop la", ["last"]),
        ("%train log last --", ["--rank"]),
    ],
)
def test_tab_offers_what_can_follow(shell: Shell, line: str, offered: list[str]) -> None:
    *before, symbol = line.split(" ")
    assert complete.candidates([word for word in before if word], symbol) == offered


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_tab_works_in_the_shell(shell: Shell) -> None:
    _, offered = shell.ip.complete("--ti", "%%train -n 2 --ti", 17)
    assert offered == ["--timeout"]
    _, offered = shell.ip.complete("st", "%train st", 9)
    assert offered == ["stop"]


def test_tab_in_the_first_line_of_a_cell_offers_options(shell: Shell) -> None:
    with provisionalcompleter():
        found = list(shell.ip.Completer.completions("%%train --see\nmodel = 1\n", 13))
    assert [completion.text for completion in found] == ["--seed"]


@pytest.mark.parametrize("line", ["-n 0", "-n 99999999999999999999"])
def test_a_number_of_ranks_that_cannot_be_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="from 1 to"):
        train_options(line)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("digits", "digits"),
        ("ü/2", "ü/2"),
        ("my run", '"my run"'),
        ("-x", "ID"),
        ("$HOME", "ID"),
        ("100% {x}", "ID"),
        ("ann's", "ID"),
        ('say "x"', "ID"),
    ],
)
def test_advice_names_a_run_so_that_the_line_can_be_run(name: str, written: str) -> None:
    assert words.reference(name, "ID") == written
    if written != "ID":
        assert [words.unquoted(word) for word in words.split_words(written)] == [name]
