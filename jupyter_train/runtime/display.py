"""What a rank shows beside text: displays, figures, the value of the last line. Rank 0 shows, the others put it in words.

``Showing`` belongs to the rank's main thread.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_train.runtime.bars import take_over
from jupyter_train.runtime.mime import portable, size_of
from jupyter_train.transport.importing import when_imported

if TYPE_CHECKING:
    from jupyter_train.runtime.recorder import Recorder

FIGURES = "module://matplotlib_inline.backend_inline"  #: matplotlib's backend in a notebook


class Recorded:
    """An audience that is the run: see `jupyter_train.runtime.shell.Audience`. Any thread."""

    def __init__(self, recorder: Recorder, *, leads: bool) -> None:
        self._recorder = recorder
        self._leads = leads
        self._pid = os.getpid()

    def display(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any],
        *,
        display_id: str | None = None,
        update: bool = False,
        is_result: bool = False,
    ) -> None:
        """Record a mime bundle; ``is_result``: it is the value of the cell's last line."""
        if not self._leads or os.getpid() != self._pid:
            if not is_result and (text := data.get("text/plain")):
                # Not sys.stdout: while rich shows something live, what is written there is displayed, and would be for ever.
                stream = sys.__stdout__ or sys.stdout
                stream.write(f"{text}\n")
            return
        kept, about, left_out = portable(data, metadata)
        if left_out:
            self._recorder.remark(_why(left_out))
        if not kept:
            return
        payload = {
            "stream": "display",
            "data": kept,
            "metadata": about,
            "display_id": display_id,
            "update": update,
        }
        if is_result:
            payload["result"] = True
        self._recorder.show(payload, size_of(kept))

    def clear(self, *, wait: bool) -> None:
        """Record that what was shown is to go."""
        if self._leads and os.getpid() == self._pid:
            self._recorder.show({"stream": "clear", "wait": wait}, 1)


class Showing:
    """Has ``display``, ``get_ipython()``, figures and the last line's value recorded, from ``open`` to ``close``."""

    def __init__(self, recorder: Recorder, *, leads: bool) -> None:
        self._recorder = recorder
        self._audience = Recorded(recorder, leads=leads)
        self._leads = leads
        self._shell: Any = None

    def open(self, module: types.ModuleType, figures: Mapping[str, Any]) -> None:
        """The cell in ``module`` begins; ``figures`` are traits of ``InlineBackend`` as the notebook has them."""
        from jupyter_train.runtime.shell import enter, new_shell

        _choose_backend(os.environ.setdefault("MPLBACKEND", FIGURES))
        self._shell = new_shell()
        enter(self._shell, self._audience, module)
        if not self._leads:  # nobody sees a picture: do not draw it
            self._shell.display_formatter.active_types = ["text/plain"]
        if figures:
            when_imported("matplotlib_inline.config", partial(_set_figures, self._shell, dict(figures)))
        take_over(self._recorder, leads=self._leads)
        sys.displayhook = self._show_result
        self._shell.events.trigger("pre_execute")

    def close(self) -> None:
        """The cell has ended: rank 0 shows the figures that are still open, as a notebook does, also after an error."""
        if self._leads:
            self._shell.events.trigger("post_execute")

    def _show_result(self, value: Any) -> None:
        if value is None:
            return
        data, metadata = self._shell.display_formatter.format(value)
        if data:  # else it has shown itself
            self._audience.display(data, metadata, is_result=True)


def _choose_backend(name: str) -> None:
    """The zygote may have imported matplotlib, which reads the variable only then."""
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is not None and "matplotlib.backends" not in sys.modules:
        matplotlib.rcParams["backend"] = name


def _set_figures(shell: Any, traits: dict[str, Any]) -> None:
    backend = sys.modules["matplotlib_inline.config"].InlineBackend.instance(parent=shell)
    for name, value in traits.items():
        setattr(backend, name, value)


def _why(left_out: list[str]) -> str:
    if any("widget" in mime for mime in left_out):
        return "widgets made in the cell live on the rank, which ends with it: they are shown as text"
    return f"a display cannot travel as {', '.join(left_out[:3])}: too large, or not made of JSON values"
