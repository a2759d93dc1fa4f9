"""What asks at a keyboard is refused in a rank: nobody sits there, and waiting for an answer would never end."""

from __future__ import annotations

import builtins
import getpass
import pdb
import sys
from typing import Any, NoReturn

AWAY = "the cell runs on ranks, away from the keyboard"


def unplug() -> None:
    """Let every question end with an error that says what to do instead. Once, before the cell."""
    builtins.input = _no_input
    # unix_getpass is getpass's name in pickles: that of an earlier cell's `from getpass import getpass`.
    for name in ("getpass", "unix_getpass"):
        setattr(getpass, name, _no_password)
    sys.breakpointhook = _no_debugger
    # The frame that asks is the user's own, so that its line is in the error.
    pdb.set_trace = _no_debugger
    # Whatever else opens a debugger, also IPython's and a subclass of the user's.
    pdb.Pdb.interaction = _no_debugger  # type: ignore[method-assign]


def _no_input(prompt: Any = "", /) -> NoReturn:
    raise RuntimeError(f"input() cannot ask anybody: {AWAY}; ask in a cell above, or use -p NAME=VALUE")


def _no_password(*args: Any, **more: Any) -> NoReturn:
    raise RuntimeError(f"getpass() cannot ask anybody: {AWAY}; ask in a cell above, and use its answer here")


def _no_debugger(*args: Any, **more: Any) -> NoReturn:
    raise RuntimeError(
        f"breakpoint() and pdb cannot ask anybody: {AWAY}; take %%train off the cell to debug it here, "
        "or print what you want to see"
    )
