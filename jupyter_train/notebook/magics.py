"""``%%train`` and ``%train``: parse, hand over, and let errors look like the user's own.

Loaded by ``%load_ext``: what is heavy is imported when a magic runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_train.errors import TrainError
from jupyter_train.notebook import options
from jupyter_train.notebook.complete import complete
from jupyter_train.notebook.session import attach_shell, current_session
from jupyter_train.notebook.words import split_words
from jupyter_train.transport.freshness import freshness

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def train_cell(line: str, cell: str) -> None:
    from jupyter_train.notebook.failure import quiet

    session = current_session()
    only_asks, line = options.asks_for_capture(line)
    asked = options.train_options(line)
    session.last_cell = cell
    try:
        from jupyter_train.notebook.cell import cell_file, cell_label, first_line, run_cell
        from jupyter_train.notebook.cellcheck import check_cell, check_names
        from jupyter_train.transport.settings import FUTURES

        first = first_line(session, cell)
        check_cell(cell, first_line=first, filename=cell_file(session), shell=session.shell)
        check_names(
            cell,
            session.namespace,
            first_line=first,
            cell=cell_label(session),
            future=session.compiler_flags & FUTURES,
        )
        if only_asks:
            from jupyter_train.notebook.capturing import report

            print(report(cell, session))  # noqa: T201  a magic's answer is what it prints
            return
        run_cell(cell, asked, session)
    except SyntaxError as error:
        raise error.with_traceback(None) from None
    except TrainError as error:
        raise quiet(error) from None
    except KeyboardInterrupt as error:
        raise quiet(error, ["KeyboardInterrupt: nothing was started"]) from None


def train_line(line: str) -> object | None:
    from jupyter_train.notebook.failure import quiet

    session = current_session()
    command, rest = options.find_command(split_words(line))
    given = options.parse(command, rest)
    try:
        from jupyter_train.notebook.commands import run_command

        return run_command(command.words, given, session)
    except TrainError as error:
        raise quiet(error) from None
    except KeyboardInterrupt as error:
        raise quiet(error, ["KeyboardInterrupt: runs go on; %train stop RUN stops one"]) from None


def refuse_syntax_errors(lines: list[str]) -> list[str]:
    """An input transformer of IPython, which changes nothing.

    What a transformer raises is shown as a plain cell's syntax error is; what
    a magic raises has IPython's own frames around it.

    Raises:
        SyntaxError: as a plain cell has it.
        CellError: the magic is not the first line of its cell.
    """
    if any(line.startswith("%%train") for line in lines[1:]):
        from jupyter_train.notebook.cellcheck import check_place
        from jupyter_train.notebook.failure import quiet

        try:
            check_place(lines, "%%train")
        except TrainError as error:
            raise quiet(error) from None
    if lines and lines[0].split(maxsplit=1)[:1] == ["%%train"] and (shell := current_session().shell):
        from jupyter_train.notebook.cellcheck import check_cell

        text = "".join(lines)
        name = shell.compile.cache(text, shell.execution_count, raw_code=text)
        try:
            check_cell("".join(lines[1:]), first_line=2, filename=name, shell=shell)
        except TrainError:
            pass  # for the magic to say
    return lines


# Else IPython calls it for half a cell, to see whether it is complete.
refuse_syntax_errors.has_side_effects = True  # type: ignore[attr-defined]


def see_modules(_result: object) -> None:
    """After each cell: remember the files that it imported, as they are now."""
    freshness.look()


# What %%train? and %train? show.
train_cell.__doc__ = options.train_help()
train_line.__doc__ = options.line_help()


def register(shell: InteractiveShell) -> None:
    """Gives ``shell`` the magics and their completion."""
    attach_shell(shell)
    unregister(shell)
    shell.input_transformers_cleanup.append(refuse_syntax_errors)
    shell.magics_manager.register_function(train_cell, "cell", "train")
    shell.magics_manager.register_function(train_line, "line", "train")
    shell.events.register("post_run_cell", see_modules)
    freshness.look()
    for magic in ("%%train", "%train"):
        shell.set_hook("complete_command", complete, str_key=magic)  # type: ignore[no-untyped-call]


def unregister(shell: InteractiveShell) -> None:
    """Takes the magics away again; runs go on."""
    if refuse_syntax_errors in shell.input_transformers_cleanup:
        shell.input_transformers_cleanup.remove(refuse_syntax_errors)
    if see_modules in shell.events.callbacks["post_run_cell"]:
        shell.events.unregister("post_run_cell", see_modules)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("train", None)
