"""tqdm's bars, of any flavour, as progress bars of the view: rank 0's; those of the other ranks count in silence.

Only bars that would stand under the cell: one with a file of its own writes there as ever.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jupyter_train.transport.importing import when_imported

if TYPE_CHECKING:
    from jupyter_train.runtime.recorder import Recorder

#: Flavours that draw by themselves, with the arguments that only they know. Without their own methods they are tqdm's plain one.
_FLAVOURS = {
    ("tqdm.notebook", "tqdm_notebook"): ("display",),
    ("tqdm.rich", "tqdm_rich"): ("progress", "options"),
}
_DRAWING = (
    "__init__",
    "__iter__",
    "update",
    "close",
    "clear",
    "reset",
    "display",
    "status_printer",
    "colour",
)


def take_over(recorder: Recorder, *, leads: bool) -> None:
    """From now on bars are told to ``recorder``; where this rank does not lead, to nobody."""
    bars = _Bars(recorder if leads else None)
    when_imported("tqdm.std", lambda: bars.patch(sys.modules["tqdm.std"].tqdm))
    for (module, name), own in _FLAVOURS.items():
        when_imported(module, functools.partial(_make_plain, module, name, own))


class _Nowhere(io.TextIOBase):
    """What a bar writes to that is shown elsewhere."""

    def write(self, text: str) -> int:
        return len(text)

    def writable(self) -> bool:
        return True


class _Bars:
    """The bars of one rank. Any thread."""

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._open: set[str] = set()

    def patch(self, tqdm: Any) -> None:
        """Have ``tqdm``, the plain class, and with it all others, tell instead of write."""
        begin, display, close = tqdm.__init__, tqdm.display, tqdm.close

        @functools.wraps(begin)
        def __init__(bar: Any, iterable: Any = None, *args: Any, **kwargs: Any) -> None:
            # desc, total, leave, file: as positional arguments nobody gives the file.
            if len(args) < 4 and kwargs.get("file") in (None, sys.stdout, sys.stderr):
                kwargs["file"] = _Nowhere()
                bar._train_bar = self._name()
            begin(bar, iterable, *args, **kwargs)

        @functools.wraps(display)
        def show(bar: Any, msg: str | None = None, pos: int | None = None, **more: Any) -> Any:
            if not hasattr(bar, "_train_bar"):
                return display(bar, msg, pos)
            self._tell(bar, gone=msg == "")
            return True

        @functools.wraps(close)
        def end(bar: Any) -> None:
            close(bar)
            self._open.discard(getattr(bar, "_train_bar", ""))

        tqdm.__init__, tqdm.display, tqdm.close = __init__, show, end

    def _name(self) -> str:
        """Names the bar by its line: a loop that is entered again starts its bar again."""
        frame = sys._getframe(2)
        while frame.f_back is not None and _is_of_a_bar(frame.f_globals.get("__name__", "")):
            frame = frame.f_back
        line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        name, number = line, 1
        while name in self._open:
            number += 1
            name = f"{line}#{number}"
        self._open.add(name)
        return name

    def _tell(self, bar: Any, *, gone: bool) -> None:
        if self._recorder is None:
            return
        total = bar.total
        self._recorder.progress(
            bar._train_bar,
            str(bar.desc or "").removesuffix(": "),
            int(bar.n),
            None if total is None else int(total),
            note=_note(bar),
            gone=gone,
        )


def _is_of_a_bar(module: str) -> bool:
    return module == __name__ or module.partition(".")[0] == "tqdm"


def _note(bar: Any) -> str:
    """How fast, and what the cell says behind its bar."""
    about = bar.format_dict
    parts = []
    if rate := about.get("rate"):
        size: Callable[[float], str] = type(bar).format_sizeof if bar.unit_scale is True else "{:.3g}".format
        parts.append(f"{size(rate)}{' ' if bar.unit_scale is not True else ''}{bar.unit}/s")
    if bar.postfix:
        parts.append(str(bar.postfix))
    return ", ".join(parts)


def _make_plain(module: str, name: str, own: tuple[str, ...]) -> None:
    flavour = getattr(sys.modules[module], name)
    for method in _DRAWING:
        if method in vars(flavour):
            delattr(flavour, method)

    def __init__(bar: Any, *args: Any, **kwargs: Any) -> None:
        kwargs = {key: value for key, value in kwargs.items() if key not in own}
        # On "only in a terminal" these flavours are shown all the same.
        kwargs["disable"] = bool(kwargs.get("disable", False))
        super(flavour, bar).__init__(*args, **kwargs)

    flavour.__init__ = __init__
