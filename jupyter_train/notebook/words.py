"""From the line behind a magic to words, and from a word to a value. Pure; raises IPython's UsageError."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError

_OPENS = {"(": ")", "[": "]", "{": "}"}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)\s*(d|h|m|s))", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[\w./:+][\w./:+-]*")
_ON_A_RUN = re.compile(r'%train (log|stop|wait|attach) ("[^"]*"|[^\s;,]+)(?: (--rank \d+|--kill))?')
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?)?b?", re.IGNORECASE)
_STEP = re.compile(r"[0-9]{1,18}")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_MAX_INT = 2**63
_MOST_PROCESSES = 100_000
_MOST_RETRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Which checkpoint of which run is meant."""

    run: str  #: as people name runs
    step: int | None = None  #: optimizer steps done; None: the newest

    def __str__(self) -> str:
        return self.run if self.step is None else f"{self.run}@{self.step}"


def split_words(line: str) -> list[str]:
    """The words of ``line``: separated by spaces that stand outside quotes and outside the brackets of a value.

    Quotes are kept: whether they belong to the value is known by who reads it
    (``-p name='0.1'`` is a string).

    Raises:
        UsageError: a quote or a bracket is not closed.
    """
    words: list[str] = []
    word = ""
    closes: list[str] = []
    quote = ""
    for char in line:
        if quote:
            word += char
            quote = "" if char == quote else quote
        elif char in "'\"" and (not word or not word[-1].isalnum()):
            # An apostrophe inside a word (--name ann's) is a letter, not a quote.
            word += char
            quote = char
        elif char.isspace() and not closes:
            if word:
                words.append(word)
            word = ""
        else:
            # Brackets count only in a value: --name run(1 is a name.
            if "=" in word and char in _OPENS:
                closes.append(_OPENS[char])
            elif closes and char == closes[-1]:
                closes.pop()
            word += char
    if quote or closes:
        raise UsageError(f"{quote or closes[-1]} is missing at the end of: {word}")
    return [*words, word] if word else words


def unquoted(word: str) -> str:
    """``word`` without quotes around all of it."""
    if len(word) >= 2 and word[0] == word[-1] and word[0] in "'\"" and word[0] not in word[1:-1]:
        return word[1:-1]
    return word


def whole_number(word: str) -> int:
    """A whole number from 1, of processes: no machine has a million.

    Raises:
        ValueError: it is none.
    """
    number = int(unquoted(word))
    if not 1 <= number <= _MOST_PROCESSES:
        raise ValueError(f"a whole number from 1 to {_MOST_PROCESSES:,} is needed")
    return number


def retries(word: str) -> int:
    """How often a run may be taken up again.

    Raises:
        ValueError: it is no such number.
    """
    number = int(unquoted(word))
    if not 0 <= number <= _MOST_RETRIES:
        raise ValueError(f"a whole number from 0 to {_MOST_RETRIES:,} is needed")
    return number


def count(word: str) -> int:
    """A whole number from 0.

    Raises:
        ValueError: it is none.
    """
    number = int(unquoted(word))
    if not 0 <= number < _MAX_INT:
        raise ValueError("a whole number from 0 is needed")
    return number


def size(word: str) -> int:
    """``1GB``, ``500 MB``, ``2GiB`` or plain bytes, in bytes.

    Raises:
        ValueError: it is no size.
    """
    found = _SIZE.fullmatch(unquoted(word).strip())
    if found is None:
        raise ValueError("a size reads 500MB, 1.5GB or 2GiB")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index((prefix or " ").lower()))


def resume(word: str) -> Resume:
    """``RUN`` or ``RUN@STEP``. A run whose own name ends like that is named by its id.

    Raises:
        ValueError: no run is named.
    """
    text = unquoted(word).strip()
    run, _, step = text.rpartition("@")
    found = (
        Resume(run=unquoted(run.strip()), step=int(step))
        if run and _STEP.fullmatch(step)
        else Resume(run=text)
    )
    if not found.run:
        raise ValueError("it is written RUN or RUN@STEP")
    return found


def seed(word: str) -> int:
    """A seed that torch, numpy and random all take.

    Raises:
        ValueError: numpy would refuse it.
    """
    number = int(unquoted(word))
    if not 0 <= number < 2**32:
        raise ValueError("a seed lies between 0 and 4294967295")
    return number


def seconds(word: str) -> float:
    """``2h``, ``90s``, ``1h30m``, ``1.5h`` or plain seconds, in seconds.

    Raises:
        ValueError: it is no duration, or zero.
    """
    text = unquoted(word).strip()
    try:
        total = float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or _DURATION.sub("", text).strip():
            raise ValueError("a duration reads 2h, 90s or 1h30m") from None
        total = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    if not 0 < total < float("inf"):
        raise ValueError("a duration is longer than 0 s")
    return total


def names(word: str) -> tuple[str, ...]:
    """``a,b``: names of Python.

    Raises:
        ValueError: one of them is no name.
    """
    found = tuple(part.strip() for part in unquoted(word).split(",") if part.strip())
    wrong = [name for name in found if not name.isidentifier()]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not a name")
    return found


def label(word: str) -> str:
    """A name for people: one line, at most 80 characters.

    Raises:
        ValueError: it is empty, too long, has control characters, or already means something else.
    """
    from jupyter_train.home import RUN_ID

    text = unquoted(word).strip()
    if not text or len(text) > 80 or not text.isprintable():
        raise ValueError("a name has 1 to 80 printable characters")
    if text == "last" or RUN_ID.fullmatch(text):
        raise ValueError(f"{text!r} already means a run: choose another name")
    return text


def safe_label(text: str) -> str:
    """As much of ``text`` as is a name for people; empty where nothing is."""
    kept = "".join(c for c in text if c.isprintable()).strip()[:80]
    try:
        return label(kept)
    except ValueError:
        return ""


def reference(name: str, run_id: str) -> str:
    """How a run is named on the line of a magic: by its name, where that is one word there, else by its id.

    IPython puts values in for ``{…}`` and ``$…`` before we see the line.
    """
    if _PLAIN_NAME.fullmatch(name):
        return name
    return f'"{name}"' if _PLAIN_NAME.fullmatch(name.replace(" ", "-")) else run_id


def in_python(text: str) -> str:
    """``text`` with Python's form of the magics that look at a run or stop it."""

    def written(found: re.Match[str]) -> str:
        command, run, option = found.groups()
        given = {"--kill": "force=True", None: ""}.get(option, (option or "").removeprefix("--rank "))
        quoted = run if run.startswith('"') else f'"{run}"'
        return f"jt.run({quoted})" + ("" if command == "attach" else f".{command}({given})")

    return _ON_A_RUN.sub(written, text)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = unquoted(word).partition("=")
    if not equals or not key.strip():
        raise ValueError("it is written KEY=VALUE")
    return key.strip(), value.strip()


def tag(word: str) -> tuple[str, str]:
    """``KEY=VALUE``, both text.

    Raises:
        ValueError: the form is another one.
    """
    key, value = _pair(word)
    return key, unquoted(value)


def parameter(word: str) -> tuple[str, Any]:
    """``KEY=VALUE``: the value is a Python literal, else a string. Tuples become lists on their way as JSON.

    Raises:
        ValueError: the form is another one, or the literal is one that JSON cannot carry.
    """
    key, text = _pair(word)
    if not key.isidentifier():
        raise ValueError(f"{key!r} is not a name")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return key, unquoted(text)
    return key, json_value(value)


def json_value(value: Any) -> Any:
    """``value`` as JSON carries it: tuples become lists.

    Raises:
        ValueError: JSON cannot carry it.
    """
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, int):
        if not -_MAX_INT <= value < _MAX_INT:
            raise ValueError("whole numbers have up to 64 bits")
        return value
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, dict):
        raise ValueError("the keys of a dict are text here, as in JSON")
    raise ValueError(f"a parameter is a number, text, list or dict of them, not a {type(value).__name__}")
