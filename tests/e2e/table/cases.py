"""The cells of the table, read from files that look like notebooks (``# %%`` begins a part).

    # %% case: a word count
    # %% file: helpers.py       beside the notebook; any number of them
    # %% before                 a cell that is run plainly in either notebook
    # %% cell                   the cell that is run plainly here, by %%train there
    # %% after                  a plain cell again; its output is compared too

``# %% needs: tqdm`` names modules without which the case is passed over.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "cells"
_PART = re.compile(r"^# %% (?P<kind>case|file|needs|before|cell|after)(?:: (?P<what>.+))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    name: str
    cell: str
    before: str = ""
    after: str = ""
    files: dict[str, str] = field(default_factory=dict)  #: text by file name
    needs: tuple[str, ...] = ()  #: modules

    @property
    def lacking(self) -> tuple[str, ...]:
        """Modules that it needs and this environment does not have."""
        return tuple(module for module in self.needs if importlib.util.find_spec(module) is None)


def read_cases(folder: Path = FOLDER) -> list[Case]:
    """All cells, file by file.

    Raises:
        ValueError: a file has a part before its first case, a case has no cell, or a name comes twice.
    """
    cases = [case for path in sorted(folder.glob("*.py")) for case in parse_cases(path.read_text())]
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two cases are called {', '.join(sorted(twice))}")
    return cases


def parse_cases(text: str) -> list[Case]:
    """The cases of one file; see :func:`read_cases`."""
    parts: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines(keepends=True):
        begun = _PART.match(line.rstrip())
        if begun:
            parts.append((begun["kind"], begun["what"] or "", []))
        elif parts:
            parts[-1][2].append(line)
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"before the first part: {line!r}")
    cases: list[Case] = []
    while parts:
        kind, name, _ = parts.pop(0)
        if kind != "case":
            raise ValueError(f"{kind} belongs to no case")
        files, needs, texts = {}, [], {"before": "", "cell": "", "after": ""}
        while parts and parts[0][0] != "case":
            kind, what, lines = parts.pop(0)
            content = "".join(lines).strip("\n") + "\n"
            if kind == "file":
                files[what] = content
            elif kind == "needs":
                needs += what.split()
            else:
                texts[kind] = content
        if not texts["cell"].strip():
            raise ValueError(f"the case {name!r} has no cell")
        cases.append(Case(name=name, files=files, needs=tuple(needs), **texts))
    return cases
