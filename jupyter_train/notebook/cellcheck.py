"""Whether a cell can run at all, before anything is started for it. Pure, but for the shell's own line rules."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jupyter_train.errors import CellError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Undefined names that one error lists.
_OTHERS_SHOWN = 5

#: Of a cell, in characters. It travels with the run's description, to the journal and to every rank, not as data.
MAX_SOURCE = 8 << 20


def check_place(lines: Sequence[str], magic: str) -> None:
    """Refuse ``magic`` below other lines of its cell, where IPython takes it for an unknown line magic.

    Where it stands may also be the middle of a text: then what is above it is no
    Python by itself, and nothing is said.

    Raises:
        CellError: what to do about it.
    """
    for index, line in enumerate(lines):
        if index and line.split(maxsplit=1)[:1] == [magic] and not lines[0].startswith("%%"):
            above = "".join(lines[:index])
            if _compiled(above, 1, "<above>")[0] is None and _shell_line(above, None) is None:
                return
            are_comments = all(one.lstrip()[:1] in ("", "#") for one in lines[:index])
            what = (
                "Move the comment below it."
                if are_comments
                else "Move what is above it into a cell of its own."
            )
            raise CellError(f"line {index + 1}: {magic} has to be the first line of its cell. {what}")


def check_cell(source: str, *, first_line: int, filename: str, shell: InteractiveShell | None = None) -> None:
    """Refuses what could only fail on the ranks.

    ``first_line`` is the line of the cell on which ``source`` starts, so that
    errors carry the numbers that the user sees. ``filename`` is what the
    shell calls the cell.

    Raises:
        SyntaxError: with the cell's own line, as a plain cell has it.
        CellError: nothing to run, a line that only IPython understands, or far too long.
    """
    if len(source) > MAX_SOURCE:
        raise CellError(
            f"the cell has {len(source):,} characters, more than the {MAX_SOURCE:,} that a cell may have: assign the long "
            "text in a cell above, or keep it in a file. Names travel as data, and only once."
        )
    tree, error = _compiled(source, first_line, filename)
    if tree is not None:
        if not tree.body:
            raise CellError("the cell is empty: put the code that trains below %%train")
        return
    assert error is not None
    line = _shell_line(source, shell)
    if line is not None and (error.lineno is None or first_line + line <= error.lineno):
        text = source.splitlines()[line].strip()
        raise CellError(
            f"line {first_line + line}: {text!r} is a line for IPython, and the ranks run plain Python. "
            "Move it up, into a cell of its own above this one."
        )
    raise error


def check_names(
    source: str, namespace: Mapping[str, Any], *, first_line: int, cell: str = "", future: int = 0
) -> None:
    """Refuse a cell that surely reads a name which is neither in it nor in the notebook.

    Args:
        source: a cell that :func:`check_cell` let through.
        namespace: the notebook's names.
        first_line: as above.
        cell: what the shell calls the cell (``Cell In[3]``).
        future: compiler flags of ``from __future__`` lines in earlier cells.

    Raises:
        NameError: with the message of a plain cell; renders itself with the
            line, the nearest name, and the other such names of the cell.
    """
    from jupyter_train.notebook.failure import quiet
    from jupyter_train.transport.undefined import undefined_names

    missing = undefined_names(source, namespace, first_line=first_line, future=future)
    if not missing:
        return
    first = missing[0]
    message = f"name {first.name!r} is not defined"
    lines = [
        "NameError in the cell; nothing was started",
        f"{cell or 'Cell'}, line {first.line}",
        f"----> {first.line} {source.splitlines()[first.line - first_line].rstrip()[:160]}",
        f"NameError: {message}",
    ]
    lines += [
        f"also not defined: {other.name} (line {other.line})" + (f". {other.remedy}" if other.remedy else "")
        for other in missing[1:_OTHERS_SHOWN]
    ]
    if len(missing) > _OTHERS_SHOWN:
        lines.append(f"… and {len(missing) - _OTHERS_SHOWN} more")
    remedy = first.remedy or "Define it in the notebook before this cell, or in the cell before this line."
    lines.append(f"→ {remedy}")
    raise quiet(NameError(message, name=first.name), lines)


def _compiled(source: str, first_line: int, filename: str) -> tuple[ast.Module | None, SyntaxError | None]:
    # Empty lines in front make every number the cell's own, also in messages
    # that quote another line ("'(' was never closed").
    padded = "\n" * (first_line - 1) + source
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        with warnings.catch_warnings():
            # The rank compiles it again and shows them there, once.
            warnings.simplefilter("ignore")
            tree = compile(padded, filename, "exec", flags=flags | ast.PyCF_ONLY_AST, dont_inherit=True)
            # 'return' outside a function is found only by compiling to the end.
            compile(padded, filename, "exec", flags=flags, dont_inherit=True)
    except SyntaxError as error:
        return None, error
    except ValueError as error:
        # Null bytes, before Python 3.12.
        return None, SyntaxError(str(error), (filename, first_line, 1, ""))
    assert isinstance(tree, ast.Module)
    return tree, None


def _shell_line(source: str, shell: InteractiveShell | None) -> int | None:
    """Index of the first line that IPython would rewrite (``%``, ``!``, ``?``), if there is one."""
    lines = source.splitlines(keepends=True)
    if shell is None:
        escaped = [i for i, line in enumerate(lines) if line.lstrip()[:1] in {"%", "!", "?"}]
        return escaped[0] if escaped else None
    for index, line in enumerate(lines):
        # Whole cells are not transformed: a real syntax error further up
        # would stop the tokenizer before the line.
        alone = line.strip() + "\n"
        if line.strip() and shell.transform_cell(alone) != alone:  # type: ignore[no-untyped-call]
            return index
    return None
