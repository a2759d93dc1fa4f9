"""Where a live view is shown: an output of a notebook, or a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Screen(Protocol):
    """Where a bundle is shown."""

    def show(self, bundle: dict[str, Any], *, final: bool) -> None:
        """Shows ``bundle`` in the place of what this screen showed before."""
        ...

    def show_again(self, bundle: dict[str, Any]) -> None:
        """Shows ``bundle`` anew: what this screen showed before was cleared away."""
        ...


class DisplayScreen:
    """One output of a notebook cell, updated by its display id, from any thread."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, bundle: dict[str, Any], *, final: bool) -> None:
        """See :class:`Screen`."""
        del final
        from IPython.display import display

        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)

    def show_again(self, bundle: dict[str, Any]) -> None:
        """See :class:`Screen`."""
        if self._handle is not None:
            self._handle.display(bundle, raw=True)


class TextScreen:
    """A terminal cannot take text back: it gets the first line and the last words."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._begun = False
        self._is_over = False
        self._last = ""

    def show(self, bundle: dict[str, Any], *, final: bool) -> None:
        """See :class:`Screen`."""
        text = bundle["text/plain"] + "\n"
        if not self._begun or (final and not self._is_over):
            self._write(text)
        elif final:  # the last words again, with what was learnt since
            said = self._last.splitlines()
            self._write("".join(f"{line}\n" for line in text.splitlines() if line not in said))
        else:
            return
        self._begun, self._is_over, self._last = True, final, text

    def show_again(self, bundle: dict[str, Any]) -> None:
        """See :class:`Screen`. Nothing is ever cleared here."""
