"""The source of functions that travel by value: a rank has no file of a notebook's cell.

Tracebacks, names of losses and advice about lines of a loop all read the source
from ``linecache``, so that is where it goes.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Mapping

MAX_CHARACTERS = 1_000_000  #: of one file: a longer one is generated, and nobody reads it


def source_texts(files: Iterable[str]) -> dict[str, str]:
    """The text of each of ``files`` that this process knows, by the name that code objects have for it."""
    texts = {}
    for file in sorted(files):
        text = "".join(linecache.getlines(file))
        if 0 < len(text) <= MAX_CHARACTERS:
            texts[file] = text
    return texts


def know_sources(texts: Mapping[str, str]) -> None:
    """Let this process have ``texts`` as the lines of these files, whatever its disk says."""
    for file, text in texts.items():
        # Without a time of change, checkcache() leaves an entry alone.
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
