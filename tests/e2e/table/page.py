"""What docs/cell.md lists as not being as in a plain cell: the test knows of no other exception.

A row of its tables ends with what shows it:

* ``everywhere: `NAME` ``: a rule of ``EVERYWHERE`` for the texts of all cells;
* ``any cell: `aspect` ``: what may differ after any of them;
* `` `case`: `aspect`, `aspect` ``: what differs after that cell of the table, and has to;
  `` `case` on 2 ranks: …`` only there. Several are parted by a semicolon.

``*`` in an aspect stands for anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cell.md"
_ROW = re.compile(r"^\|(?P<cells>.*)\|$")
_SEEN = re.compile(r"`(?P<case>[^`]+)`(?: on (?P<ranks>\d+) ranks?)?: (?P<aspects>`[^`]+`(?:, `[^`]+`)*)")

#: Rules that the page may name. What makes a text of either side what it is on the other.
EVERYWHERE: dict[str, Callable[[Any], Any]] = {
    "file of the cell": lambda text: re.sub(
        r"/\S*/ipykernel_\d+/\d+\.py|\b\d+\.py(?=, line)|<train [^>]*>", "<cell>", text
    ),
    "order of stdout and stderr": lambda text: text,  # see ``compare.STREAMS``
    "addresses": lambda text: re.sub(r"0x[0-9a-f]{6,}", "0x…", text),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One cell that the page names."""

    case: str
    ranks: int | None  #: None: on any number
    aspects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The lists of the page."""

    everywhere: tuple[str, ...]
    any_cell: tuple[str, ...]
    exceptions: tuple[Listed, ...]

    def allows(self, aspect: str) -> bool:
        """Whether that may differ after any cell."""
        return any(covers(one, aspect) for one in self.any_cell)

    def aspects(self, case: str, ranks: int) -> set[str]:
        """What may differ after that cell."""
        return {
            aspect
            for one in self.exceptions
            if one.case == case and one.ranks in (None, ranks)
            for aspect in one.aspects
        }


def read_page(text: str | None = None) -> Page:
    """The lists of ``docs/cell.md``."""
    everywhere: list[str] = []
    any_cell: list[str] = []
    exceptions: list[Listed] = []
    for line in (text if text is not None else PAGE.read_text()).splitlines():
        row = _ROW.match(line.strip())
        if row is None:
            continue
        last = row["cells"].split("|")[-1].strip()
        if last.startswith("everywhere: "):
            everywhere += re.findall(r"`([^`]+)`", last)
            continue
        if last.startswith("any cell: "):
            any_cell += re.findall(r"`([^`]+)`", last)
            continue
        exceptions += [
            Listed(
                case=seen["case"],
                ranks=int(seen["ranks"]) if seen["ranks"] else None,
                aspects=tuple(re.findall(r"`([^`]+)`", seen["aspects"])),
            )
            for seen in _SEEN.finditer(last)
        ]
    return Page(everywhere=tuple(everywhere), any_cell=tuple(any_cell), exceptions=tuple(exceptions))


def covers(listed: str, aspect: str) -> bool:
    """Whether what the page lists stands for ``aspect``."""
    pattern = re.sub(r"([\[?])", r"[\1]", listed)
    return fnmatchcase(aspect, pattern)
