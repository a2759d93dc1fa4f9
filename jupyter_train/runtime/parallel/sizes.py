"""Is an error one of sizes that do not fit, as a cell has it that relies on its batch size and is given a share? Pure."""

from __future__ import annotations

import re

_LONGEST = 120
_OF_A_SIZE = re.compile(r"\b(sizes?|shapes?|dimensions?|batch_size|numel|elements)\b", re.IGNORECASE)
_KINDS = (RuntimeError, ValueError, IndexError)


def is_of_a_size(error: BaseException) -> bool:
    """It speaks of the size of a tensor or array."""
    return isinstance(error, _KINDS) and bool(_OF_A_SIZE.search(str(error)))


def first_words(error: BaseException) -> str:
    """The beginning of the error's text."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
