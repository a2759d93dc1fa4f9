"""A Jupyter server with one kernel, spoken to as a browser does: REST and a web socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.kernel import environment
from benchmarks.soak import census

START_S = 60.0


class Server:
    """A running server; ``open_kernel`` once, then ``press``."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._home = home
        self._folder = folder
        self._token = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""
        self._kernel = ""

    @property
    def pid(self) -> int:
        """Of the server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: it is not there in time.
        """
        runtime = self._folder / "runtime"
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
                    *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),
                    *(f"--ServerApp.root_dir={self._folder}", f"--IdentityProvider.token={self._token}"),
                ],
                env={
                    **environment(self._home),
                    "JUPYTER_RUNTIME_DIR": str(runtime),
                    "JUPYTER_CONFIG_DIR": str(self._folder / "config"),
                },
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + START_S
        while not self._url:
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"no server; {(self._folder / 'log').read_text()[-2000:]}")
            with contextlib.suppress(OSError, ValueError, KeyError):
                told = json.loads((runtime / f"jpserver-{self.pid}.json").read_text())
                urllib.request.urlopen(f"{told['url']}api", timeout=5).close()
                self._url = str(told["url"]).rstrip("/")
            time.sleep(0.05)

    def open_kernel(self) -> None:
        """Start the kernel."""
        asked = urllib.request.Request(
            f"{self._url}/api/kernels",
            data=b"{}",
            headers={"Authorization": f"token {self._token}"},
            method="POST",
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            self._kernel = str(json.loads(answer.read())["id"])

    def press(self, *cells: str, wait: bool) -> None:
        """Sends cells one after the other, each when the one before has ended; the last one's end is awaited if asked.

        Raises:
            RuntimeError: a cell failed.
            TimeoutError: it did not end in time.
        """
        asyncio.run(asyncio.wait_for(self._press(cells, wait=wait), 120))

    async def _press(self, cells: tuple[str, ...], *, wait: bool) -> None:
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import websocket_connect

        address = f"ws{self._url.removeprefix('http')}/api/kernels/{self._kernel}/channels"
        asked = HTTPRequest(address, headers={"Authorization": f"token {self._token}"})
        socket: Any = await websocket_connect(asked)
        for number, cell in enumerate(cells, start=1):
            message = _execute_request(cell)
            await socket.write_message(json.dumps(message))
            while wait or number < len(cells):
                read = await socket.read_message()
                if read is None:
                    raise RuntimeError("the server closed the connection")
                if isinstance(read, bytes):
                    continue
                told = json.loads(read)
                if told.get("parent_header", {}).get("msg_id") != message["header"]["msg_id"]:
                    continue
                if told["msg_type"] == "error":
                    raise RuntimeError("\n".join(told["content"]["traceback"]))
                if told["msg_type"] == "status" and told["content"]["execution_state"] == "idle":
                    break
        if not wait:
            await asyncio.sleep(0.5)  # what was written last is on its way
        socket.close()

    def kernels(self) -> list[int]:
        """Process ids of the home's kernels."""
        return [p.pid for p in census.take(self._home).processes if p.role == "kernel"]

    def close(self) -> None:
        """End it, and its kernel."""
        for pid in self.kernels():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


def _execute_request(code: str) -> dict[str, Any]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "username": "soak",
        "session": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}


@contextlib.contextmanager
def running_server(home: Path, folder: Path) -> Iterator[Server]:
    """One with a kernel, for the length of a with statement."""
    folder.mkdir(exist_ok=True)
    server = Server(home, folder)
    try:
        server.start()
        server.open_kernel()
        yield server
    finally:
        server.close()
