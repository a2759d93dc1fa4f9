"""Lines of JSON between the supervisor and a process that it started, over a socket pair."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]


class Channel:
    """One end. Its sockets are never inherited by a program that is executed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self._rest = b""

    def fileno(self) -> int:
        """For selectors."""
        return self.sock.fileno()

    def send(self, **message: Any) -> bool:
        """Send, if the other end is there and reads; a frozen process must not freeze this one."""
        try:
            data = json.dumps(message).encode() + b"\n"
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    def receive(self) -> list[Message] | None:
        """What has come, without waiting; None when the other end is gone."""
        try:
            data = self.sock.recv(65536)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    async def messages(self) -> list[Message] | None:
        """What comes next, in an event loop; None when the other end is gone."""
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.sock, arrived.set)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                messages = self.receive()
                if messages is None or messages:
                    return messages
        finally:
            loop.remove_reader(self.sock)

    def close(self) -> None:
        """Twice does nothing."""
        self.sock.close()


def channel_pair() -> tuple[Channel, Channel]:
    """Two ends of one channel."""
    here, there = socket.socketpair()
    return Channel(here), Channel(there)
