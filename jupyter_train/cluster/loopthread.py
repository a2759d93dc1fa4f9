"""The thread in which a kernel's Dask client works: started and ended by us.

A Client starts one by itself, and does not end it when it cannot connect.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any


class LoopThread:
    """An event loop in a thread of its own, running from now until `end`."""

    def __init__(self) -> None:
        self.loop: Any = None  #: tornado's IOLoop, as Dask wants it
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jupyter_train client", daemon=True)
        self._thread.start()
        self._started.wait()

    def end(self) -> None:
        """Stop the loop and wait for the thread. Twice does nothing."""
        if self._thread.is_alive():
            self.loop.add_callback(self._ended.set)
            self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        from tornado.ioloop import IOLoop

        self._ended = asyncio.Event()
        self.loop = IOLoop.current()
        self._started.set()
        await self._ended.wait()
