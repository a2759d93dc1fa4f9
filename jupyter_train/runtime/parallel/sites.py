"""Which line of the user's code is calling: found by walking the stack past torch and us, and remembered per instruction."""

from __future__ import annotations

import ast
import linecache
import os
import sys
import sysconfig
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from jupyter_train.transport.code import label_of

LONGEST_NAME = 40
_EAGER = frozenset(
    {"list", "tuple", "sorted", "set", "frozenset", "dict", "deque", "sum", "max", "min", "any", "all"}
)
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


SiteKey = tuple[str, str, int, int]  #: a file, a function, its first line and the offset of an instruction
Instruction = tuple[CodeType, int, int]  #: a code, the offset of its instruction, and the line


@dataclass(slots=True, kw_only=True, eq=False)
class Site:
    """One instruction of the user's code. Compared by identity: there is one per instruction."""

    file: str
    line: int  #: from 1, in ``file``
    text: str  #: the call's own source, "" where there is none
    key: int = field(default=0)  #: the same number on every rank: 31 bits of the file's name, 24 of the line

    def __post_init__(self) -> None:
        self.key = _file_key(self.file) << 24 | self.line & 0xFFFFFF

    def __str__(self) -> str:
        return _place(self.file, self.line)

    def beside(self, line: int) -> str:
        """Another line of the same file, in words."""
        return _place(self.file, line)


def _file_key(file: str) -> int:
    return zlib.crc32(file.encode()) & 0x7FFFFFFF


def _module_file(key: int) -> str | None:
    """The file of an imported module with that key; slow."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return next((file for file in files if isinstance(file, str) and _file_key(file) == key), None)


def _place(file: str, line: int) -> str:
    if label := label_of(file):
        return f"{label}, line {line}"
    return f"line {line}" if file.startswith("<") else f"{os.path.basename(file)}:{line}"


class Sites:
    """Finds the innermost frame that is neither torch's nor ours nor an installed package's.

    Where only packages call (a trainer library), the outermost of those stands
    for them. Main thread of a rank; no locking.
    """

    def __init__(self, cell_file: str) -> None:
        import torch

        self.cell_file = cell_file
        paths = sysconfig.get_paths()
        self._torch = os.path.dirname(torch.__file__) + os.sep
        self._packages = tuple({paths[k] + os.sep for k in ("stdlib", "platstdlib", "purelib", "platlib")})
        self._foreign: dict[CodeType, bool] = {}
        self._sites: dict[tuple[CodeType, int], Site] = {}
        self._files = {_file_key(cell_file): cell_file}
        self._promised: dict[SiteKey, Site] = {}  #: known from an earlier attempt, not reached yet

    def _is_foreign(self, code: CodeType) -> bool:
        file = code.co_filename
        if file == self.cell_file:
            return False
        if file.startswith((_OURS, self._torch, "<frozen ")):
            return True
        return file.startswith(self._packages)

    def is_users(self, code: CodeType) -> bool:
        """Whether ``code`` is the user's. Any thread."""
        return not self._is_foreign(code)

    def frame(self, depth: int = 1) -> FrameType | None:
        """The user's frame, looking from ``depth`` callers up."""
        frame: FrameType | None = sys._getframe(depth)
        last: FrameType | None = None
        foreign = self._foreign
        while frame is not None:
            code = frame.f_code
            known = foreign.get(code)
            if known is None:
                known = foreign[code] = self._is_foreign(code)
            if not known:
                return frame
            last = frame
            frame = frame.f_back
        return last

    def library(self, depth: int = 1) -> str:
        """The package through which the user's frame came here, looking from ``depth`` callers up; "" where it is torch alone."""
        frame: FrameType | None = sys._getframe(depth)
        outermost = ""
        while frame is not None and self._foreign.setdefault(frame.f_code, self._is_foreign(frame.f_code)):
            file = frame.f_code.co_filename
            if file.startswith(self._packages) and not file.startswith((_OURS, self._torch)):
                outermost = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            frame = frame.f_back
        return outermost

    def outer(self, frame: FrameType) -> FrameType | None:
        """The user's next frame that called ``frame``."""
        above = frame.f_back
        while above is not None and self._foreign.setdefault(above.f_code, self._is_foreign(above.f_code)):
            above = above.f_back
        return above

    def here(self, depth: int = 2) -> Site:
        """The site of the call that is under way, looking from ``depth`` callers up."""
        frame = self.frame(depth)
        if frame is None:
            return self._add(Site(file="?", line=0, text=""))
        return self.of(frame)

    def of(self, frame: FrameType) -> Site:
        """The site at which ``frame`` stands."""
        key = (frame.f_code, frame.f_lasti)
        site = self._sites.get(key)
        if site is None:
            site = self._promised.pop(self._key(*key), None) if self._promised else None
            site = site or Site(file=frame.f_code.co_filename, line=frame.f_lineno, text=_text(*_at(frame)))
            self._sites[key] = self._add(site)
        return site

    def _key(self, code: CodeType, at: int) -> SiteKey:
        """The same in every process that runs the same cell, under whatever name."""
        file = "" if code.co_filename == self.cell_file else code.co_filename
        return file, getattr(code, "co_qualname", code.co_name), code.co_firstlineno, at

    def key_of(self, site: Site) -> list[Any]:
        """What leads to ``site`` in another process that runs the same cell, as plain values."""
        key = next((key for key, one in self._sites.items() if one is site), None)
        found = next((key for key, one in self._promised.items() if one is site), None)
        if key is not None:
            found = self._key(*key)
        return [*(found or ("?", "", 0, 0)), site.line, site.text]

    def with_key(self, plain: Sequence[Any]) -> Site:
        """The site that :meth:`key_of` named, which need not have been reached here."""
        *parts, line, text = plain
        key: SiteKey = (str(parts[0]), str(parts[1]), int(parts[2]), int(parts[3]))
        for known, site in self._sites.items():
            if self._key(*known) == key:
                return site
        if key not in self._promised:
            self._promised[key] = Site(file=key[0] or self.cell_file, line=int(line), text=str(text))
        return self._promised[key]

    def of_error(self, error: BaseException) -> Site | None:
        """The user's line that ``error`` comes from; None where no line of theirs is in its traceback."""
        found = None
        step = error.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            if not self._foreign.setdefault(code, self._is_foreign(code)):
                found = Site(file=code.co_filename, line=step.tb_lineno, text="")
            step = step.tb_next
        return found

    def instruction(self, depth: int = 1) -> Instruction | None:
        """The instruction of the user's code that is under way, cheaper than its site."""
        frame = self.frame(depth + 1)
        return None if frame is None else _at(frame)

    def words(self, place: Instruction | None) -> tuple[str, str]:
        """The line of ``place``, and its source."""
        if place is None:
            return "a line of the cell", ""
        return _place(place[0].co_filename, place[2]), " ".join(_text(*place).split())

    def _add(self, site: Site) -> Site:
        self._files.setdefault(site.key >> 24, site.file)
        return site

    def line(self, frame: FrameType | None) -> int:
        """The key of the line of the user's code at which another thread is, whose innermost frame is ``frame``. Any thread."""
        last = frame
        while frame is not None:
            if not self._is_foreign(frame.f_code):
                break
            last, frame = frame, frame.f_back
        found = frame or last
        if found is None:
            return 0
        return _file_key(found.f_code.co_filename) << 24 | found.f_lineno & 0xFFFFFF

    def place(self, key: int) -> str:
        """The line with that key, on whichever rank it was reached."""
        file = self._files.get(key >> 24) or _module_file(key >> 24)
        return f"line {key & 0xFFFFFF} of another file" if file is None else _place(file, key & 0xFFFFFF)


def is_left_by(site: Site, error: BaseException) -> bool:
    """Has ``error`` come through the function that ``site`` is in, from a line behind it?"""
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_filename == site.file and code.co_firstlineno <= site.line <= step.tb_lineno:
            return True
        step = step.tb_next
    return False


def _at(frame: FrameType) -> Instruction:
    return frame.f_code, frame.f_lasti, frame.f_lineno


def _text(code: CodeType, last: int, number: int) -> str:
    """Source of the instruction at ``last``, in line ``number``; its whole line where Python kept no columns."""
    positions = list(code.co_positions())
    at = last // 2
    line, end_line, start, end = positions[at] if at < len(positions) else (None, None, None, None)
    if line is None or end_line is None or start is None or end is None:
        return linecache.getline(code.co_filename, number).strip()
    lines = [linecache.getline(code.co_filename, n) for n in range(line, end_line + 1)]
    raw = [text.encode() for text in lines]
    raw[-1] = raw[-1][:end]
    raw[0] = raw[0][start:]
    return b"".join(raw).decode(errors="replace").strip()


def _holds_no_loss(value: ast.expr, given: ast.expr) -> bool:
    """In ``value.backward(given)`` the loss is what is given: ``accelerator.backward(loss)``."""
    if isinstance(value, ast.Name) and value.id in ("accelerator", "fabric", "self", "autograd"):
        return True
    return "loss" in ast.unparse(given).lower() and "loss" not in ast.unparse(value).lower()


def drains(text: str) -> bool:
    """The expression ``text`` reads all that it is given before anybody gets the first of it: ``list(loader)``."""
    if text.startswith(("[", "{", "*", "(*")):
        return True
    return text.partition("(")[0].rpartition(".")[2].strip() in _EAGER


def loss_name(text: str) -> str:
    """What the cell calls the loss in the call ``text``: its own expression, trimmed; "loss" where it is a call or unreadable.

    ``loss.backward()`` → ``loss``; ``(d_real + d_fake).backward()`` → ``d_real + d_fake``;
    ``scaler.scale(loss).backward()`` → ``loss``.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return "loss"
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Attribute):
        return "loss"
    if "backward" not in tree.func.attr:
        return "loss"  # a library calls it somewhere below: trainer.fit(model)
    value: ast.expr = tree.func.value
    if tree.args and (isinstance(value, ast.Attribute) or _holds_no_loss(value, tree.args[0])):
        value = tree.args[0]
    if isinstance(value, ast.Call):
        scaled = isinstance(value.func, ast.Attribute) and value.func.attr == "scale" and len(value.args) == 1
        if not scaled:
            return "loss"
        value = value.args[0]
    if isinstance(value, (ast.Call, ast.List, ast.Tuple)):
        return "loss"
    name = " ".join(ast.unparse(value).split())
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
