"""Keeps the stem of a local cluster's zygotes: one process that has imported torch, for all workers that are or will be.

The socket that agents ask on is the supervisor's, so that a request waits while a stem that was killed is
replaced. Where stems end as soon as they start, the socket is closed, and each agent starts a zygote of its own.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from contextlib import suppress

from jupyter_train.runtime.launcher import zygote_environ
from jupyter_train.runtime.stem import listen

FAILURES_BORNE = 3
STEADY_S = 20.0  #: a stem that lived so long did not fail to start

logger = logging.getLogger("jupyter_train.cluster")


class StemKeeper:
    """Of one supervisor, in its only thread. Linux; elsewhere there is no stem."""

    def __init__(self) -> None:
        self.name = ""  #: by which agents find it; empty: there is none
        self.pid = 0
        self._listening: socket.socket | None = None
        self._started = 0.0
        self._failures = 0

    def open(self) -> None:
        """Start the first stem. Where that cannot be done, there is none."""
        if sys.platform != "linux":
            return
        name = f"jupyter-train-{secrets.token_hex(16)}"
        try:
            self._listening = listen(name)
            self._listening.set_inheritable(True)
            self._start(self._listening)
        except OSError as error:
            logger.warning("no stem for zygotes: %s", error)
            self.close()
        else:
            self.name = name

    def exited(self) -> None:
        """The stem's process is gone, and waited for: start another, unless that is in vain."""
        self.pid = 0
        if self._listening is None:
            return
        self._failures = 1 if time.monotonic() - self._started >= STEADY_S else self._failures + 1
        logger.warning("the stem of the zygotes ended")
        if self._failures >= FAILURES_BORNE:
            self.close()
            return
        try:
            self._start(self._listening)
        except OSError as error:
            logger.warning("no stem for zygotes: %s", error)
            self.close()

    def close(self) -> None:
        """End the stem; its zygotes go on until their agents end. Twice does nothing."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def _start(self, listening: socket.socket) -> None:
        program = (
            "import sys, json; sys.path[:] = json.loads(sys.argv[3]);"
            "from jupyter_train.runtime.stem import run;"
            "run(int(sys.argv[1]), int(sys.argv[2]))"
        )
        numbers = [str(listening.fileno()), str(os.getpid())]
        self._started = time.monotonic()
        # Not by subprocess: the supervisor itself waits for all its children.
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", program, *numbers, json.dumps(sys.path)],
            zygote_environ(os.environ),
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=True,
        )
        logger.info("started a stem for zygotes, process %d", self.pid)
