"""Tells ranks that wait for this one where it is: a thread looks at the main thread's frame, once it is asked."""

from __future__ import annotations

import sys
import threading

from jupyter_train.runtime.parallel.board import Board
from jupyter_train.runtime.parallel.sites import Sites

EVERY_S = 1.0


class Lookout:
    """Answers for one rank. Made, started and stopped in its main thread."""

    def __init__(self, board: Board, sites: Sites, *, every_s: float = EVERY_S) -> None:
        self._board = board
        self._sites = sites
        self._every_s = every_s
        self._watched = threading.get_ident()
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
                self._board.say_where(self._sites.line(sys._current_frames().get(self._watched)))
