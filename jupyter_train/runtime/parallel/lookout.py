"""Tells ranks that wait for this one where it is, and whether it gets on: a thread looks at the main thread, once it is asked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Hashable
from types import FrameType
from typing import Any

import torch

from jupyter_train.runtime.parallel.board import Board
from jupyter_train.runtime.parallel.sites import Sites

EVERY_S = 1.0
MOST_FRAMES = 64  #: a deep recursion is looked at where it is, not whole
MOST_VALUES = 256  #: of one frame
MOST_SEEN = 100_000  #: from then on nothing is remembered, and everything is new again

_PLAIN = (int, float, complex, str, bytes, type(None))


class Progress:
    """Counts signs of life of a thread: at a line, or with a value of a variable, that was not seen before.

    So a loop that waits for something that never comes gives none, and one that
    works its way through data gives many. One whole call of native code gives
    none either, however long it takes.
    """

    def __init__(self) -> None:
        self.signs = 0
        self._seen: set[Hashable] = set()

    def look(self, frame: FrameType | None, users: Sites) -> None:
        """Look at the thread whose innermost frame is ``frame``; the values of the user's frames count, of all others the lines."""
        is_new = False
        for _ in range(MOST_FRAMES):
            if frame is None:
                break
            is_new |= self._is_new((frame.f_code, frame.f_lasti))
            if users.is_users(frame.f_code):
                is_new |= self._is_new((frame.f_code, _fingerprint(frame)))
            frame = frame.f_back
        self.signs += is_new

    def _is_new(self, sight: Hashable) -> bool:
        if sight in self._seen:
            return False
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen.add(sight)
        return True


class Lookout:
    """Answers for one rank. Made, started and stopped in its main thread."""

    def __init__(self, board: Board, sites: Sites, *, every_s: float = EVERY_S) -> None:
        self._board = board
        self._sites = sites
        self._every_s = every_s
        self._watched = threading.get_ident()
        self._progress = Progress()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._thread = threading.Thread(target=self._listen, name="jupyter-train-lookout", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; twice does nothing."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self._every_s)
            self._thread = None

    def _listen(self) -> None:
        while not self._ended.wait(self._every_s):
            if self._board.is_asked():
                frame = sys._current_frames().get(self._watched)
                self._progress.look(frame, self._sites)
                self._board.say_where(self._sites.line(frame), self._progress.signs)
                del frame  # it would keep the cell's variables


def _fingerprint(frame: FrameType) -> int:
    """Changes with what the frame's variables are."""
    # Under the interpreter's lock this is one step; the main thread goes on afterwards.
    values = list(frame.f_locals.items())[:MOST_VALUES]
    return hash(tuple((name, _known(value)) for name, value in values if not name.startswith("__")))


def _known(value: Any) -> Hashable:
    """Plain values are known by value, others by identity, and tensors by version: no code of the user's runs for it."""
    if type(value) in _PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, torch.Tensor) and not value.is_inference():
        return id(value), value._version
    return id(value)
