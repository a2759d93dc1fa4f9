"""What is ours in a rank, kept from the cell: it may rebind any builtin, and we still have to bring its names home."""

from __future__ import annotations

import builtins
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def keep_python() -> Callable[[], None]:
    """Remember builtins, hooks and blocked signals of this thread; the function returned puts them back.

    What the cell added stays. The way back uses no builtin, for there may be none left.
    """
    ours = builtins.__dict__
    names: dict[str, Any] = {**ours}
    hooks = sys.excepthook, sys.unraisablehook
    trace, traced = sys.settrace, sys.gettrace()
    profile, profiled = sys.setprofile, sys.getprofile()
    unblock, mask, what = (
        signal.pthread_sigmask,
        signal.SIG_SETMASK,
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    )

    def put_back() -> None:
        ours.update(names)
        trace(traced)
        profile(profiled)
        unblock(mask, what)
        sys.modules["builtins"] = builtins
        sys.excepthook, sys.unraisablehook = hooks

    return put_back


def tell_crashes() -> None:
    """Have the interpreter write its stack where the agent reads, should native code crash.

    Through a descriptor of its own: the cell may close 2 and open a file of its own there.
    """
    faulthandler.enable(file=os.dup(2), all_threads=False)
