"""What differs between a cell that ran plainly and one that ran by ``%%train``. Pure."""

from __future__ import annotations

import math
import re
import struct
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.e2e.table.shown import Output

RELATIVE = 2e-5  #: of numbers: several ranks add in another order, in float32
ABSOLUTE = 1e-6
STREAMS = "order of stdout and stderr"  #: a rule that the page may name
_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A notebook after a cell."""

    leaves: Mapping[str, Any]  #: see ``describe``
    outputs: tuple[Output, ...]
    after: tuple[Output, ...]  #: of the cell behind it
    error: tuple[str, str] | None  #: type and message
    frames: tuple[tuple[int, int], ...] = ()  #: of the error: which cell, which line


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as after the plain cell."""

    aspect: str  #: as docs/cell.md names it: the path of a name, or ``output``, ``error``, …
    plain: Any = field(default=None)
    trained: Any = field(default=None)

    def __str__(self) -> str:
        return f"{self.aspect}\n    plain:   {_short(self.plain)}\n    trained: {_short(self.trained)}"


def differences(
    plain: Outcome, trained: Outcome, everywhere: Mapping[str, Callable[[Any], Any]]
) -> list[Difference]:
    """All that differs, after ``everywhere`` has been applied to the texts of either side."""
    found = _of_leaves(plain.leaves, trained.leaves)
    for aspect, ours, theirs in (
        ("output", plain.outputs, trained.outputs),
        ("output after", plain.after, trained.after),
    ):
        found += _of_outputs(aspect, ours, theirs, everywhere)
    if not _same_error(plain.error, trained.error, everywhere):
        found.append(Difference(aspect="error", plain=plain.error, trained=trained.error))
    elif plain.error is not None and _ends(plain.frames) != _ends(trained.frames):
        found.append(Difference(aspect="error line", plain=plain.frames, trained=trained.frames))
    return found


def same_text(one: str, other: str) -> bool:
    """Whether two texts say the same, numbers to rounding."""
    if one == other:
        return True
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(a == b or (_has_fraction(a) and _close_as_printed(a, b)) for a, b in pairs)


def same_value(one: Any, other: Any) -> bool:
    """Whether two leaves are the same, numbers to rounding."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and bool(
            np.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE * max(1.0, _largest(one)), equal_nan=True)
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool(one == other)


def _of_leaves(plain: Mapping[str, Any], trained: Mapping[str, Any]) -> list[Difference]:
    found: list[Difference] = []
    within: list[str] = []  #: what begins so is part of something that differs already
    for path in sorted(plain.keys() | trained.keys()):
        ours, theirs = plain.get(path, "missing"), trained.get(path, "missing")
        if not same_value(ours, theirs) and not any(map(path.startswith, within)):
            within += [path + sign for sign in ".[:"]
            found.append(Difference(aspect=path, plain=ours, trained=theirs))
    return found


def _of_outputs(
    aspect: str,
    plain: tuple[Output, ...],
    trained: tuple[Output, ...],
    everywhere: Mapping[str, Callable[[Any], Any]],
) -> list[Difference]:
    ours, theirs = ([_normal(o, everywhere) for o in side] for side in (plain, trained))
    if STREAMS in everywhere:
        ours, theirs = _settled(ours), _settled(theirs)
    if [_kind(o) for o in ours] == [_kind(o) for o in theirs] and all(map(_same_output, ours, theirs)):
        return []
    return [Difference(aspect=aspect, plain=ours, trained=theirs)]


def _normal(output: Output, everywhere: Mapping[str, Callable[[Any], Any]]) -> Output:
    data = output.data
    if data is not None:
        data = {mime: _changed(x, everywhere) if isinstance(x, str) else x for mime, x in data.items()}
    return Output(kind=output.kind, text=_changed(output.text, everywhere), data=data)


def _settled(outputs: list[Output]) -> list[Output]:
    """Between two displays first stdout, then stderr: a kernel keeps no order among the two."""
    settled: list[Output] = []
    streams: dict[str, str] = {}
    for output in [*outputs, None]:
        if output is not None and output.data is None and output.kind in ("stdout", "stderr"):
            streams[output.kind] = streams.get(output.kind, "") + output.text
            continue
        settled += [Output(kind=kind, text=streams[kind]) for kind in sorted(streams, reverse=True)]
        streams.clear()
        if output is not None:
            settled.append(output)
    return settled


def _changed(text: str, everywhere: Mapping[str, Callable[[Any], Any]]) -> str:
    for change in everywhere.values():
        text = change(text)
    return text


def _kind(output: Output) -> Any:
    return (output.kind, *sorted(output.data)) if output.data is not None else output.kind


def _same_output(one: Output, other: Output) -> bool:
    if one.data is None or other.data is None:
        return same_text(one.text, other.text)
    return all(_same_data(mime, one.data[mime], other.data[mime]) for mime in one.data)


def _same_data(mime: str, one: Any, other: Any) -> bool:
    if mime == "image/png":
        return png_size(one) == png_size(other)
    if isinstance(one, str) and isinstance(other, str):
        return same_text(one, other)
    return bool(one == other)


def png_size(encoded: str) -> tuple[int, int]:
    """Width and height of a picture, in pixels."""
    width, height = struct.unpack(">II", b64decode(encoded)[16:24])
    return width, height


def _same_error(
    one: tuple[str, str] | None, other: tuple[str, str] | None, everywhere: Mapping[str, Callable[[Any], Any]]
) -> bool:
    if one is None or other is None:
        return one is other
    return one[0] == other[0] and same_text(_changed(one[1], everywhere), _changed(other[1], everywhere))


def _ends(frames: tuple[tuple[int, int], ...]) -> tuple[Any, ...]:
    """Outermost and innermost: in between, %%train leaves out frames of deep stacks."""
    return (frames[0], frames[-1]) if frames else ()


def _has_fraction(number: str) -> bool:
    return any(c in number for c in ".eE")


def _close_as_printed(one: str, other: str) -> bool:
    last_digit = 10.0 ** -len(one.partition(".")[2].split("e")[0]) if "e" not in one else 0.0
    return math.isclose(float(one), float(other), rel_tol=RELATIVE, abs_tol=ABSOLUTE + 1.01 * last_digit)


def _largest(array: Any) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "\n             ".join(map(_short, value)) or "nothing"
    if isinstance(value, Output):
        content = value.text if value.data is None else {m: str(x)[:300] for m, x in value.data.items()}
        return f"{value.kind}: {content!r}"
    text = repr(value)
    return text if len(text) < 600 else text[:600] + "…"
