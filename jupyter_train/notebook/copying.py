"""Copies the journal of a cluster that keeps it elsewhere, while this kernel has something to do with it.

A cluster of ours writes its journal into the user's folder. Any other may run
on other machines, and what its runs did would go with it. A daemon thread
``jupyter-train-copy`` per controller asks for news, and ends when its runs
have ended and everything is on this disk.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from jupyter_train.errors import StoreError, TrainError

if TYPE_CHECKING:
    from jupyter_train.cluster import Connection
    from jupyter_train.store import JournalCopy

logger = logging.getLogger("jupyter_train")

PERIOD_S = 1.0
GIVE_UP_S = 60.0
_lock = threading.Lock()
_copiers: dict[str, Copier] = {}  #: by address of the scheduler


def keep_copy(connection: Connection) -> None:
    """Has the journal of that cluster copied, in a thread, where it is not on this disk; returns at once."""
    if connection.kind == "local":
        return
    with _lock:
        copier = _copiers.get(connection.address)
        if copier is None or not copier.go_on():
            _copiers[connection.address] = Copier(connection).start()


class Copier:
    """One cluster's journal on its way here."""

    def __init__(
        self,
        connection: Connection,
        *,
        period_s: float = PERIOD_S,
        give_up_s: float = GIVE_UP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._period_s = period_s
        self._give_up_s = give_up_s
        self._clock = clock
        self._changed = threading.Condition()
        self._is_asked = True  #: since the newest look: there may be something new
        self._has_ended = False
        self._copy_there: JournalCopy | None = None
        self._thread = threading.Thread(target=self._run, name="jupyter-train-copy", daemon=True)

    def start(self) -> Copier:
        """Starts the thread."""
        self._thread.start()
        return self

    def go_on(self) -> bool:
        """There may be something new: looks again. False: it has ended, and another one is needed."""
        with self._changed:
            self._is_asked = True
            self._changed.notify_all()
            return not self._has_ended and self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Waits for its end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._copy()
        except Exception:  # a thread of the kernel's: what it cannot do, it says and leaves
            logger.warning(
                "the journal of %s is not copied to this disk", self._connection.address, exc_info=True
            )
        finally:
            with self._changed:
                self._has_ended = True

    def _copy(self) -> None:
        silent_since: float | None = None
        said = ""
        while self._connection.is_alive:
            with self._changed:
                self._is_asked = False
            try:
                is_done = self._look()
                silent_since = None
            except (StoreError, OSError, sqlite3.Error) as error:
                is_done = False
                if str(error) != said:  # once: a disk stays full for a while
                    said = str(error)
                    logger.warning(
                        "what the runs on %s do is not copied to this disk: %s",
                        self._connection.address,
                        error,
                    )
            except TrainError:  # the cluster does not answer: whoever follows a run says so
                is_done = False
                silent_since = self._clock() if silent_since is None else silent_since
                if self._clock() - silent_since >= self._give_up_s:
                    return
            with self._changed:
                if is_done and not self._is_asked:
                    self._has_ended = True
                    return
                if not self._is_asked:
                    self._changed.wait(self._period_s)

    def _look(self) -> bool:
        """Copy what is new. True: nothing is left to be done, no run goes on and all is here."""
        from jupyter_train.store import JournalCopy

        control = self._connection.control
        if self._copy_there is None:
            controller = str(control.hello()["controller"])
            self._copy_there = JournalCopy(controller, origin=self._connection.address)
        if not self._copy_there.is_needed:
            control.journal({}, reads_file=True)
            return True
        progress = self._copy_there.update(control.journal)
        return progress is not None and not progress.is_active
