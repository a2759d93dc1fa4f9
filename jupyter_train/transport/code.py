"""The source of functions that travel by value: a rank has no file of a notebook's cell.

Tracebacks, names of losses and advice about lines of a loop all read the source
from ``linecache``, so that is where it goes.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

MAX_CHARACTERS = 1_000_000  #: of one file: a longer one is generated, and nobody reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """Of one file."""

    text: str
    label: str  #: what people call it: "Cell In[3]", else empty


def source_texts(files: Iterable[str]) -> dict[str, SourceText]:
    """The text of each of ``files`` that this process knows, by the name that code objects have for it."""
    texts = {}
    for file in sorted(files):
        text = "".join(linecache.getlines(file))
        if 0 < len(text) <= MAX_CHARACTERS:
            texts[file] = SourceText(text=text, label=_label(file))
    return texts


def know_sources(texts: Mapping[str, SourceText]) -> None:
    """Let this process have ``texts`` as the lines of these files, whatever its disk says."""
    for file, known in texts.items():
        lines = known.text.splitlines(keepends=True)
        # Without a time of change, checkcache() leaves an entry alone. The last place is for the
        # full path, which only checkcache() reads.
        linecache.cache[file] = (len(known.text), None, lines, known.label or file)


def label_of(file: str) -> str:
    """What people call ``file``, where it travelled and is no file to them; else empty."""
    entry = cast("tuple[Any, ...]", linecache.cache.get(file, ()))
    known = len(entry) == 4 and entry[1] is None and entry[3] != file
    return str(entry[3]) if known else ""


def _label(file: str) -> str:
    ipython = sys.modules.get("IPython.core.getipython")
    shell = ipython.get_ipython() if ipython is not None else None
    named = shell.compile.format_code_name(file) if shell is not None else None
    return " ".join(named) if named else ""
