"""Labels under which a function call travels beside the notebook's names.

No name of Python has a space in it: a label never meets a name of the notebook,
and an error that starts with one reads as a sentence (``argument loader.dataset.file
cannot travel``).
"""

from __future__ import annotations

#: What rank 0's call returned, on its way back.
RETURN_VALUE = "return value"


def function_label(name: str) -> str:
    """Of the function that is called."""
    return f"function {name}"


def argument_label(name: str) -> str:
    """Of the value of one parameter."""
    return f"argument {name}"


def is_label(name: str) -> bool:
    """Whether ``name`` is one of these, and no name of the notebook."""
    return name == RETURN_VALUE or name.startswith((function_label(""), argument_label("")))
